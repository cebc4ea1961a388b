"""Fixtures of the whole-system tests: a real server, real clients, and functions made from a few lines of Python.

The server is the binary named by REKINDLE_BINARY (`scripts/test` sets it), the clients are unmodified boto3 and AWS
CLI, the runtime is the unmodified AWS client. A test that lacks something says so with `missing`, which is loud: the
reason is printed at the end of the run and counted as skipped.
"""

from __future__ import annotations

import io
import os
import textwrap
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from harness import api, paths, runtimes
from harness.server import Server


def missing(what: str) -> NoReturn:
    """Skips the test and says loudly what it lacked."""
    pytest.skip(f"DID NOT RUN: {what}")


@pytest.fixture(scope="session")
def binary() -> Path:
    path = paths.binary("debug")
    if not path.exists():
        pytest.fail(f"{path} is not built: run `cargo build` or set REKINDLE_BINARY")
    return path


@dataclass(frozen=True)
class Runtime:
    """The runtime that the tests use: installed once, seen by every server through a link in its data directory."""

    id: str
    home: Path

    def lend(self, data_dir: Path) -> None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (data_dir / "runtimes").symlink_to(self.home / "runtimes")


@pytest.fixture(scope="session")
def runtime(binary: Path) -> Runtime:
    """REKINDLE_TEST_RUNTIME if set, else the best one that this machine has."""
    home = paths.CACHE / "tests"
    home.mkdir(parents=True, exist_ok=True)
    wanted = os.environ.get("REKINDLE_TEST_RUNTIME")
    return Runtime(runtimes.install_best(binary, home, [wanted] if wanted else None), home)


class System:
    """A server and what a test needs to use it."""

    def __init__(self, server: Server, runtime: Runtime) -> None:
        self.server = server
        self.runtime = runtime.id

    @property
    def client(self) -> Any:
        """A fresh boto3 client: the server may have been started anew."""
        return api.boto3_client(self.server)

    def create(self, code: str | bytes, name: str | None = None, **settings: Any) -> str:
        """Creates a function from source text (or a zip), waits until it is active and returns its name."""
        name = name or f"f-{uuid.uuid4().hex[:12]}"
        package = code if isinstance(code, bytes) else zip_of({"app.py": code})
        defaults = {"Timeout": 10, "MemorySize": 256}
        api.deploy(self.client, name, package, settings.pop("Runtime", self.runtime), **{**defaults, **settings})
        return name

    def publish(self, name: str, snap_start: bool = True) -> str:
        return api.publish(self.client, name, snap_start)

    def create_snapshotted(self, code: str | bytes, **settings: Any) -> tuple[str, str]:
        """Creates a function and publishes it with SnapStart; returns its name and version."""
        name = self.create(code, **settings)
        return name, self.publish(name)

    def invoke(self, name: str, version: str = "$LATEST", event: Any = None) -> api.Answer:
        return api.Invoker(self.server).invoke(name, version, event)

    def logs(self, name: str) -> str:
        """Everything that was logged for the function so far."""
        files = sorted((self.server.data_dir / "logs").rglob("*.log"))
        return "".join(file.read_text(errors="replace") for file in files if name in file.parts)


@pytest.fixture(scope="session")
def start(binary: Path, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., System]]:
    """Starts servers; each has a data directory of its own and ends with the test session."""
    servers: list[Server] = []

    def begin(*arguments: str) -> System:
        data_dir = tmp_path_factory.mktemp("server") / "data"
        runtime.lend(data_dir)
        server = Server(binary, data_dir, list(arguments))
        servers.append(server)
        server.start()
        return System(server, runtime)

    yield begin
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def system(start: Callable[..., System]) -> System:
    """A server with the settings that a user gets."""
    return start()


@pytest.fixture(scope="session")
def cold_system(start: Callable[..., System]) -> System:
    """A server that takes idle environments down so soon that every spaced invocation is a cold start."""
    return start("--idle-timeout-ms", "50")


@pytest.fixture
def own_system(start: Callable[..., System]) -> Iterator[System]:
    """A server for one test, which may kill it or damage its data."""
    system = start()
    yield system
    system.server.kill()
    system.server.remove()


def zip_of(files: dict[str, str | bytes]) -> bytes:
    """A zip with these files; source text is dedented."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in files.items():
            package.writestr(name, textwrap.dedent(content) if isinstance(content, str) else content)
    return buffer.getvalue()
