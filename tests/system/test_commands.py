"""The commands beside `serve`: doctor, runtime, snapshot; and what `serve` prints when it starts."""

from __future__ import annotations

import json
import time
from pathlib import Path

from conftest import Runtime, System
from harness.server import Server


def test_serve_prints_what_it_found_and_how_to_try_it(system: System) -> None:
    log = system.server.log_text()
    assert system.runtime in log
    assert "aws" in log and system.server.url in log
    assert system.server.credentials()[0] in log


def test_doctor(system: System) -> None:
    done = system.server.run("doctor", check=False)
    assert done.returncode in (0, 1) and done.stdout.strip()


def test_runtime_list(system: System) -> None:
    listed = json.loads(system.server.run("runtime", "list", "--json").stdout)
    assert system.runtime in [runtime["id"] for runtime in listed]
    assert system.runtime in system.server.run("runtime", "list").stdout


def test_a_missing_interpreter_names_the_remedy(binary: Path, tmp_path: Path) -> None:
    server = Server(binary, tmp_path / "data")
    done = server.run("runtime", "install", "python3.12", "--from", "/nonexistent/python", check=False)
    assert done.returncode != 0 and "python3.12" in done.stderr
    done = server.run("runtime", "install", "python2.7", check=False)
    assert done.returncode != 0 and "python3.9 to python3.14" in done.stderr


def test_runtime_install_and_remove(binary: Path, system: System, tmp_path: Path) -> None:
    server = Server(binary, tmp_path / "data")
    assert "installed" in server.run("runtime", "install", system.runtime).stdout
    assert "installed already" in server.run("runtime", "install", system.runtime).stdout
    server.run("runtime", "remove", system.runtime)
    assert json.loads(server.run("runtime", "list", "--json").stdout) == []


def test_a_runtime_can_be_installed_anew_while_the_server_runs(binary: Path, runtime: Runtime, tmp_path: Path) -> None:
    server = Server(binary, tmp_path / "data")
    server.run("runtime", "install", runtime.id)
    system = System(server.start(), runtime)
    code = "import os\ndef handler(event, context):\n    return os.stat('/var/runtime').st_ino\n"
    try:
        name, version = system.create_snapshotted(code)
        before = system.invoke(name).json()
        server.run("runtime", "install", runtime.id, "--force")
        assert isinstance(system.invoke(name, version).json(), int), "what was published goes on"
        # A description of a runtime is read again when it is five seconds old.
        time.sleep(6)
        name, version = system.create_snapshotted(code)
        answers = [system.invoke(name).json(), system.invoke(name, version).json()]
        assert answers[0] == answers[1] != before
    finally:
        server.kill()


def test_the_plan_of_a_snapshot_can_be_printed(system: System) -> None:
    name, version = system.create_snapshotted("def handler(event, context):\n    return 1\n")
    plan = system.server.run("snapshot", "plan", f"{name}:{version}").stdout
    assert len(plan.splitlines()) > 20
