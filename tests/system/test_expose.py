"""`rekindle serve --expose`: a function reaches the services of the host that the operator named, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import System
from harness.figures import duration_ms

TALK = """
import socket, uuid
INIT_ID = uuid.uuid4().hex
def ask(port, address="127.0.0.1"):
    try:
        with socket.create_connection((address, port), 5) as line:
            line.sendall(b"hello")
            line.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: line.recv(4096), b"")).decode()
    except OSError as error:
        return type(error).__name__
AT_INIT = {}
def handler(event, context):
    return {"init": INIT_ID, "named": ask(event["named"]), "other": ask(event["other"]),
            "elsewhere": ask(event["named"], event["address"]), "api": ask(event["api"]),
            "interfaces": [name for _, name in socket.if_nameindex()]}
"""
UNREACHABLE = ("ConnectionRefusedError", "TimeoutError", "OSError")


class Service:
    """A TCP service of the host: reads until its caller has said everything, answers with its name and what it read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self.calls += 1
            threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        with line:
            heard = b"".join(iter(lambda: line.recv(4096), b""))
            line.sendall(f"{self.name} heard {heard.decode()}".encode())

    def close(self) -> None:
        # A close alone would leave the port open as long as a thread waits in `accept`.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Service, Service]]:
    """One service that is exposed and one that is not."""
    pair = Service("named"), Service("other")
    yield pair
    for service in pair:
        service.close()


@pytest.fixture(scope="module")
def exposing(start: Callable[..., System], services: tuple[Service, Service]) -> System:
    return start("--expose", f"127.0.0.1:{services[0].port}")


def event_for(system: System, services: tuple[Service, Service]) -> dict:
    named, other = services
    return {"named": named.port, "other": other.port, "api": system.server.port, "address": own_address()}


def own_address() -> str:
    """An address of this machine that is not its loopback, or one that leads nowhere (RFC 5737)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return "192.0.2.1"


def check_reach(seen: dict) -> None:
    assert seen["named"] == "named heard hello"
    for place in ("other", "elsewhere", "api"):
        assert seen[place] in UNREACHABLE, f"{place}: {seen[place]}"
    assert seen["interfaces"] == ["lo"]


def test_a_function_reaches_the_named_service_alone(exposing: System, services: tuple[Service, Service]) -> None:
    name = exposing.create(TALK, Timeout=30)
    answer = exposing.invoke(name, event=event_for(exposing, services))
    assert answer.function_error is None, answer.payload
    check_reach(answer.json())
    assert services[1].calls == 0


def test_it_does_so_after_a_restore(exposing: System, services: tuple[Service, Service]) -> None:
    code = TALK.replace("AT_INIT = {}", f"AT_INIT = ask({services[0].port})\nassert AT_INIT == 'named heard hello'")
    name, version = exposing.create_snapshotted(code, Timeout=30)
    with ThreadPoolExecutor(3) as callers:
        event = event_for(exposing, services)
        answers = list(callers.map(lambda _: exposing.invoke(name, version, event), range(3)))
    for answer in answers:
        assert answer.function_error is None, answer.payload
        check_reach(answer.json())
    assert duration_ms(answers[0].log, "Restore Duration") is not None, answers[0].log
    assert len({answer.json()["init"] for answer in answers}) == 1


def test_a_service_that_is_not_there_closes_the_line(start: Callable[..., System]) -> None:
    gone = Service("gone")
    gone.close()
    system = start("--expose", f"127.0.0.1:{gone.port}")
    name = system.create("""
        import socket
        def handler(event, context):
            try:
                with socket.create_connection(("127.0.0.1", event["port"]), 5) as line:
                    return line.recv(9).decode()
            except ConnectionError:
                return ""
        """)
    assert system.invoke(name, event={"port": gone.port}).json() == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--expose", "localhost"], "localhost"),
        (["--expose", "127.0.0.1:0"], "port 0"),
        (["--expose", "127.0.0.1:9001"], "Runtime API"),
        (["--expose", "127.0.0.1:7000", "--expose", "10.0.0.1:7000"], "given twice"),
        ([part for port in range(7000, 7065) for part in ("--expose", f"127.0.0.1:{port}")], "64"),
    ],
    ids=["no port", "port zero", "the port of the Runtime API", "one port twice", "too many"],
)
def test_misuse_is_refused_at_the_start(binary: Path, tmp_path: Path, arguments: list[str], complaint: str) -> None:
    command = [str(binary), "serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode != 0 and complaint in done.stderr
    assert "--expose" in done.stderr
