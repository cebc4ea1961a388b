"""What must survive: kill -9 of the server at any moment, damaged snapshots, and a burst of cold invocations."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import System, zip_of
from harness.api import boto3_client, deploy, publish
from harness.figures import duration_ms

COUNTER = "calls = 0\ndef handler(event, context):\n    global calls\n    calls += 1\n    return calls\n"
ROUNDS = 6


def processes_of(system: System) -> dict[int, str]:
    """Live processes of the server or of its environments: by program, command line, cgroup or variables."""
    data_dir, binary = str(system.server.data_dir), str(system.server.binary.resolve())
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                continue
            described = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            exe = os.readlink(entry / "exe")
        except OSError:
            continue
        is_environment = b"AWS_LAMBDA_RUNTIME_API=" in described and b"AWS_LAMBDA_FUNCTION_NAME=fault-" in described
        if data_dir.encode() in described or is_environment or (exe == binary and server_started(entry, system)):
            found[int(entry.name)] = described[:200].decode(errors="replace")
    return found


def server_started(entry: Path, system: System) -> bool:
    """Whether a process of the server's program belongs to this system: it keeps the same log file open."""
    try:
        links = [os.readlink(link) for link in (entry / "fd").iterdir()]
    except OSError:
        return False
    return str(system.server.log_file) in links


def host_role_of(system: System) -> int:
    """The process of the host role: the child that the server started first."""
    server = system.server.process.pid
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return min(int(child) for child in children if b"host-role" in Path(f"/proc/{child}/cmdline").read_bytes())


def wait_until_gone(system: System) -> dict[int, str]:
    deadline = time.monotonic() + 15
    while processes_of(system) and time.monotonic() < deadline:
        time.sleep(0.1)
    return processes_of(system)


class TestKill:
    def test_nothing_is_left_after_kill_and_restart(self, own_system: System) -> None:
        name, version = own_system.create_snapshotted(COUNTER, name="fault-left")
        own_system.invoke(name), own_system.invoke(name, version)
        assert processes_of(own_system)
        own_system.server.kill()
        assert not wait_until_gone(own_system), "environments outlived the server"
        own_system.server.restart()
        assert own_system.invoke(name, version).json() == 1
        own_system.server.stop()
        assert not wait_until_gone(own_system)

    def test_the_end_of_the_host_role_ends_the_server(self, own_system: System) -> None:
        name, version = own_system.create_snapshotted(COUNTER, name="fault-host-role")
        own_system.invoke(name, version)
        os.kill(host_role_of(own_system), signal.SIGKILL)
        assert own_system.server.process.wait(60) != 0
        assert "the host role has died" in own_system.server.log_text()
        own_system.server.kill()
        assert not wait_until_gone(own_system), "environments outlived the host role"
        own_system.server.restart()
        answer = own_system.invoke(name, version)
        assert answer.json() == 1 and duration_ms(answer.log, "Restore Duration") is not None

    def test_acknowledged_things_survive(self, own_system: System) -> None:
        client = own_system.client
        name, version = own_system.create_snapshotted(COUNTER, name="fault-kept")
        client.create_alias(FunctionName=name, Name="live", FunctionVersion=version)
        own_system.server.kill()
        own_system.server.restart()
        client = own_system.client
        assert client.get_alias(FunctionName=name, Name="live")["FunctionVersion"] == version
        status = client.get_function_configuration(FunctionName=name, Qualifier=version)
        assert (status["State"], status["SnapStart"]["OptimizationStatus"]) == ("Active", "On")
        answer = own_system.invoke(name, "live")
        assert answer.json() == 1 and duration_ms(answer.log, "Restore Duration") is not None

    def test_kill_at_random_moments_during_publish(self, own_system: System) -> None:
        seed = int(os.environ.get("REKINDLE_TEST_SEED", random.randrange(1 << 32)))
        print(f"seed {seed}; repeat with REKINDLE_TEST_SEED={seed}")
        chance = random.Random(seed)
        acknowledged: list[str] = []
        for turn in range(ROUNDS):
            name = f"fault-publish-{turn}"
            deploy(own_system.client, name, zip_of({"app.py": COUNTER}), own_system.runtime, MemorySize=256)
            acknowledged.append(name)
            killer = threading.Timer(chance.uniform(0, 1.2), own_system.server.kill)
            killer.start()
            try:
                publish(boto3_client(own_system.server), name, snap_start=True)
            except Exception as error:  # the server is killed under the client: any error is right
                print(f"turn {turn}: {type(error).__name__}")
            killer.join()
            assert not wait_until_gone(own_system), f"seed {seed}, turn {turn}: processes are left over"
            own_system.server.restart()
            self.check_after_restart(own_system, acknowledged)

    def settled(self, client: Any, name: str, number: str) -> dict:
        """The configuration of a version that is not being built any more: a restart begins its snapshot again."""
        deadline = time.monotonic() + 60
        while True:
            status = client.get_function_configuration(FunctionName=name, Qualifier=number)
            if status["State"] != "Pending" or time.monotonic() > deadline:
                return status
            time.sleep(0.2)

    def check_after_restart(self, system: System, acknowledged: list[str]) -> None:
        """Every acknowledged function is there, no version hangs, and every version that claims a snapshot has it."""
        client = system.client
        listed = {function["FunctionName"] for function in client.list_functions()["Functions"]}
        assert set(acknowledged) <= listed
        snapshots = {(entry["function"], str(entry["version"])) for entry in system.server.snapshots()}
        claimed = set()
        for name in acknowledged:
            for version in client.list_versions_by_function(FunctionName=name)["Versions"][1:]:
                number = version["Version"]
                status = self.settled(client, name, number)
                assert status["State"] in ("Active", "Failed"), f"{name}:{number} hangs in {status['State']}"
                if status["SnapStart"]["OptimizationStatus"] == "On":
                    claimed.add((name, number))
        assert claimed == snapshots, "half-made snapshots are left over, or finished ones are gone"
        for name, number in claimed:
            assert system.invoke(name, number).json() >= 1

    def test_kill_at_random_moments_during_invokes(self, own_system: System) -> None:
        seed = int(os.environ.get("REKINDLE_TEST_SEED", random.randrange(1 << 32)))
        print(f"seed {seed}; repeat with REKINDLE_TEST_SEED={seed}")
        chance = random.Random(seed)
        name, version = own_system.create_snapshotted(COUNTER, name="fault-invoke")
        for turn in range(ROUNDS):
            killer = threading.Timer(chance.uniform(0, 0.5), own_system.server.kill)
            killer.start()
            with ThreadPoolExecutor(8) as callers:
                list(callers.map(lambda _: invoke_or_none(own_system, name, version), range(40)))
            killer.join()
            assert not wait_until_gone(own_system), f"seed {seed}, turn {turn}: processes are left over"
            own_system.server.restart()
            answer = own_system.invoke(name, version)
            assert answer.json() == 1 and duration_ms(answer.log, "Restore Duration") is not None


def invoke_or_none(system: System, name: str, version: str) -> object:
    try:
        return system.invoke(name, version).json()
    except Exception:  # the server is killed under the client: any error is right
        return None


class TestDamage:
    @pytest.mark.parametrize("damage", ["corrupt", "truncate", "remove"])
    def test_a_damaged_snapshot_is_refused_and_the_call_is_served(self, own_system: System, damage: str) -> None:
        name, version = own_system.create_snapshotted(COUNTER, name=f"fault-{damage}")
        own_system.server.stop()
        for file in largest_files(own_system.server.data_dir / "snapshots"):
            harm(file, damage)
        own_system.server.restart()
        answer = own_system.invoke(name, version)
        assert answer.status == 200 and answer.function_error is None and answer.json() == 1
        assert duration_ms(answer.log, "Restore Duration") is None, "a damaged snapshot was restored"
        assert "restore an environment; a normal init serves the invocation" in own_system.server.log_text()
        assert own_system.invoke(name, version).json() >= 1

    @pytest.mark.parametrize("damage", ["corrupt", "truncate", "remove"])
    def test_a_damaged_manifest_is_refused_and_the_call_is_served(self, own_system: System, damage: str) -> None:
        name, version = own_system.create_snapshotted(COUNTER, name=f"fault-manifest-{damage}")
        other, other_version = own_system.create_snapshotted(COUNTER, name=f"fault-beside-{damage}")
        (entry,) = [entry for entry in own_system.server.snapshots() if entry["function"] == name]
        own_system.server.stop()
        snapshots = own_system.server.data_dir / "snapshots"
        manifests = [path for path in snapshots.rglob(f"*{entry['snapshot']}*") if path.is_file()]
        assert manifests, f"no file of snapshot {entry['snapshot']} in {sorted(snapshots.rglob('*'))[:20]}"
        for file in manifests:
            harm(file, damage)
        own_system.server.restart()
        answer = own_system.invoke(name, version)
        assert answer.status == 200 and answer.function_error is None and answer.json() == 1
        assert duration_ms(answer.log, "Restore Duration") is None, "a damaged snapshot was restored"
        answer = own_system.invoke(other, other_version)
        assert answer.json() == 1 and duration_ms(answer.log, "Restore Duration") is not None


def largest_files(directory: Path) -> list[Path]:
    """The stored chunks: every file but the small ones that describe them."""
    files = sorted((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    return files[len(files) // 2 :]


def harm(file: Path, damage: str) -> None:
    if damage == "remove":
        file.unlink()
        return
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 0x40
    file.chmod(0o600)
    file.write_bytes(content)


class TestBurst:
    @pytest.mark.parametrize("snap_start", [True, False], ids=["restored", "initialized"])
    def test_fifty_concurrent_cold_invocations(self, own_system: System, snap_start: bool) -> None:
        name = own_system.create(
            "import time\ndef handler(event, context):\n    time.sleep(0.3)\n    return event['n']\n",
            name=f"fault-burst-{snap_start}".lower(),
            Timeout=60,
            MemorySize=128,
        )
        version = own_system.publish(name, snap_start)
        with ThreadPoolExecutor(50) as callers:
            answers = list(callers.map(lambda n: own_system.invoke(name, version, {"n": n}), range(50)))
        assert [(answer.status, answer.function_error) for answer in answers] == [(200, None)] * 50
        assert [answer.json() for answer in answers] == list(range(50))
        if snap_start:
            restored = [duration_ms(answer.log, "Restore Duration") is not None for answer in answers]
            assert sum(restored) >= 30, f"only {sum(restored)} of 50 were restored"


def test_stop_is_clean(own_system: System) -> None:
    name = own_system.create(COUNTER, name="fault-stop")
    own_system.invoke(name)
    assert own_system.server.stop() == 0
    assert not wait_until_gone(own_system)
