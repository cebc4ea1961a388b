"""What the tests of the languages have in common: packages, installs, cold starts that must be restores, and clones.

Deliberately absent: anything of one language.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import System, missing
from harness import paths

PAUSE_S = 0.6
"""Longer than the idle time of `cold_system`: the next invocation is a cold start."""

CLONES = 3


def package(files: dict[str, str | bytes], programs: tuple[str, ...] = ()) -> bytes:
    """A zip with these files; `programs` names those that can be executed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if name in programs else 0o100644) << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def install(binary: Path, home: Path, runtime: str, *options: str | Path) -> None:
    """Installs a runtime; a missing interpreter skips the test, everything else that goes wrong fails it."""
    command = [str(binary), "runtime", "install", runtime, *map(str, options), "--data-dir", str(home)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        if "was found" in done.stderr:
            missing(done.stderr.strip())
        pytest.fail(f"{runtime} cannot be installed: {done.stderr}")


def example(name: str, runtime: str) -> bytes:
    """An example's deployment package, as `examples/build` makes it."""
    command = [sys.executable, str(paths.EXAMPLES / "build"), name, "--runtime", runtime]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{name} cannot be built: {done.stderr}")
    return Path(done.stdout.split()[-1]).read_bytes()


def event_of(name: str) -> dict:
    return json.loads((paths.EXAMPLES / name / "event.json").read_text())


def restored_one_by_one(system: System, name: str, version: str, event: Any, count: int = 3) -> list[dict]:
    """What cold starts answer, one after the other; each must be a restore."""
    answers = []
    for _ in range(count):
        time.sleep(PAUSE_S)
        answer = system.invoke(name, version, event)
        assert answer.function_error is None, answer.payload
        assert "Restore Duration" in answer.log and "Init Duration" not in answer.log, explain(system, answer.log)
        answers.append(answer.json())
    return answers


def clones(system: System, name: str, version: str) -> list[dict]:
    """What that many environments of the version answer that run at the same time, each a restored one of its own."""
    time.sleep(PAUSE_S)
    with ThreadPoolExecutor(CLONES) as pool:
        answers = list(pool.map(lambda _: system.invoke(name, version, {"sleep_ms": 500}), range(CLONES)))
    for answer in answers:
        assert answer.function_error is None, answer.payload
        assert "Restore Duration" in answer.log, explain(system, answer.log)
    return [answer.json() for answer in answers]


def explain(system: System, log: str) -> str:
    """The function's log and what the server says of failed restores."""
    failures = [line for line in system.server.log_text().splitlines() if "restore failed" in line]
    return "\n".join([log, *failures[-3:]])


def assert_all_differ(answers: list[dict], fields: list[str]) -> None:
    for field in fields:
        values = [json.dumps(answer[field]) for answer in answers]
        assert len(set(values)) == len(values), f"{field} repeats: {values}"


def log_of(system: System, name: str, part: str) -> str:
    """The function's log as soon as it holds `part`: the files are written off the request's path."""
    deadline = time.monotonic() + 5
    while part not in system.logs(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    return system.logs(name)
