"""SnapStart end to end: publish makes a snapshot, cold starts are restores, hooks run, clones differ, disk is freed."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, WaiterError
from conftest import System, missing, zip_of
from harness import paths, runtimes
from harness.api import publish
from harness.figures import duration_ms

PAUSE_S = 0.5
"""Longer than the idle time of `cold_system`: the next invocation is a cold start."""

RANDOM = """
import os, random, ssl, tempfile, time, uuid
INIT_ID = uuid.uuid4().hex
OWN = random.random(); ssl.RAND_bytes(8); next(tempfile._get_candidate_names())
def handler(event, context):
    time.sleep(event.get("sleep", 0))
    return {"init": INIT_ID, "urandom": os.urandom(8).hex(), "ssl": ssl.RAND_bytes(8).hex(), "random": random.random(),
            "temp": tempfile.mktemp(), "uuid4": uuid.uuid4().hex, "time": time.time(),
            "type": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], "monotonic": time.monotonic()}
"""

HOOKS = """
import os
from snapshot_restore_py import register_after_restore, register_before_snapshot
events = []
def note(what):
    events.append(what); print("HOOK " + what)
register_before_snapshot(note, "before-1")
register_before_snapshot(note, "before-2")
register_after_restore(note, "after-1")
register_after_restore(note, "after-2")
with open("/tmp/from-init", "w") as file:
    file.write("made at init")
def handler(event, context):
    return {"events": events, "file": open("/tmp/from-init").read()}
"""


def state_of(system: System, name: str, version: str) -> dict:
    return system.client.get_function_configuration(FunctionName=name, Qualifier=version)


def publish_failing(system: System, code: str, **settings: object) -> tuple[str, dict]:
    """Publishes with SnapStart, expects the version to fail, returns the function's name and the configuration."""
    name = system.create(code, **settings)
    with pytest.raises(WaiterError):
        publish(system.client, name, snap_start=True)
    return name, state_of(system, name, "1")


class TestPublish:
    def test_pending_then_active_and_on(self, system: System) -> None:
        client, name = system.client, system.create(RANDOM)
        answer = client.update_function_configuration(FunctionName=name, SnapStart={"ApplyOn": "PublishedVersions"})
        assert answer["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        published = client.publish_version(FunctionName=name)
        assert published["State"] == "Pending"
        client.get_waiter("published_version_active").wait(FunctionName=name, Qualifier="1")
        version = state_of(system, name, "1")
        assert version["State"] == "Active"
        assert version["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"}
        assert state_of(system, name, "$LATEST")["SnapStart"]["OptimizationStatus"] == "Off"

    def test_invoke_while_pending_is_refused(self, system: System) -> None:
        client, name = system.client, system.create("import time\ntime.sleep(4)\ndef handler(e, c): return 1")
        client.update_function_configuration(FunctionName=name, SnapStart={"ApplyOn": "PublishedVersions"})
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        client.publish_version(FunctionName=name)
        with pytest.raises(ClientError) as error:
            client.invoke(FunctionName=name, Qualifier="1")
        assert error.value.response["Error"]["Code"] in ("ResourceConflictException", "SnapStartNotReadyException")
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
        client.get_waiter("published_version_active").wait(FunctionName=name, Qualifier="1")
        assert system.invoke(name, "1").json() == 1

    def test_init_error_fails_the_version(self, system: System) -> None:
        name, version = publish_failing(system, "raise RuntimeError('no start')")
        assert version["State"] == "Failed" and version["StateReasonCode"].startswith("FunctionError")
        assert version["StateReason"]
        with pytest.raises(ClientError):
            system.client.invoke(FunctionName=name, Qualifier="1")
        with pytest.raises(ClientError) as error:
            system.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
        assert error.value.response["Error"]["Code"] == "ResourceConflictException"

    def test_exit_during_init_fails_the_version(self, system: System) -> None:
        _, version = publish_failing(system, "import os; os._exit(3)")
        assert version["State"] == "Failed" and version["StateReasonCode"].startswith("FunctionError")

    def test_init_is_logged(self, system: System) -> None:
        name, _ = system.create_snapshotted("print('during init')\ndef handler(e, c): return 1")
        log = wait_for_log(system, name, "INIT_REPORT")
        assert log.index("INIT_START Runtime Version: python:") < log.index("during init") < log.index("INIT_REPORT")

    def test_a_snapshot_can_be_listed(self, system: System) -> None:
        name, version = system.create_snapshotted(RANDOM)
        (entry,) = [entry for entry in system.server.snapshots() if entry["function"] == name]
        assert str(entry["version"]) == version
        assert entry["image_bytes"] > 1_000_000 and entry["stored_bytes"] > 0


class TestRestore:
    def test_cold_starts_are_restores(self, cold_system: System) -> None:
        name, version = cold_system.create_snapshotted(RANDOM)
        answers = []
        for _ in range(5):
            time.sleep(PAUSE_S)
            answers.append(cold_system.invoke(name, version))
        for answer in answers:
            assert answer.function_error is None, answer.payload
            assert duration_ms(answer.log, "Restore Duration") is not None, answer.log
            assert duration_ms(answer.log, "Init Duration") is None, answer.log
            assert "RESTORE_START" in answer.log or "RESTORE_START" in wait_for_log(cold_system, name, "RESTORE_START")
        assert len({answer.json()["init"] for answer in answers}) == 1
        assert {answer.json()["type"] for answer in answers} == {"snap-start"}

    def test_latest_is_never_restored(self, cold_system: System) -> None:
        name, version = cold_system.create_snapshotted(RANDOM)
        latest = cold_system.invoke(name).json()
        assert latest["type"] == "on-demand"
        assert latest["init"] != cold_system.invoke(name, version).json()["init"]

    def test_an_alias_of_a_snapshotted_version(self, system: System) -> None:
        name, version = system.create_snapshotted(RANDOM)
        system.client.create_alias(FunctionName=name, Name="live", FunctionVersion=version)
        answer = system.invoke(name, "live")
        assert answer.version == version and answer.json()["type"] == "snap-start"

    def test_log_lines_of_a_restore(self, cold_system: System) -> None:
        name, version = cold_system.create_snapshotted(HOOKS)
        time.sleep(PAUSE_S)
        cold_system.invoke(name, version)
        log = wait_for_log(cold_system, name, "REPORT RequestId")
        parts = [
            "RESTORE_START Runtime Version: python:",
            "HOOK after-1",
            "HOOK after-2",
            "RESTORE_REPORT Restore Duration: ",
        ]
        parts += ["START RequestId: ", "END RequestId: ", "REPORT RequestId: "]
        places = [log.find(part, log.find("RESTORE_START")) for part in parts]
        assert -1 not in places and places == sorted(places), log

    def test_environment_of_a_snapshotted_version(self, system: System) -> None:
        name, version = system.create_snapshotted(
            "import os\nINIT = dict(os.environ)\ndef handler(e, c): return {'env': dict(os.environ), 'init': INIT}"
        )
        seen = system.invoke(name, version).json()
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_LOG_STREAM_NAME"):
            assert key not in seen["env"], key
        assert seen["env"]["AWS_CONTAINER_CREDENTIALS_FULL_URI"].endswith("/2021-04-23/credentials")
        assert seen["env"]["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        assert seen["env"]["AWS_LAMBDA_FUNCTION_VERSION"] == version

    def test_credentials_are_served(self, system: System) -> None:
        name, version = system.create_snapshotted("""
            import json, os, urllib.request
            def handler(event, context):
                request = urllib.request.Request(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"],
                    headers={"Authorization": os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]})
                return json.load(urllib.request.urlopen(request, timeout=5))
            """)
        answer = system.invoke(name, version).json()
        assert answer["AccessKeyId"] and answer["SecretAccessKey"] and answer["Token"]
        assert answer["Expiration"] > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())

    def test_a_restored_environment_is_reused(self, system: System) -> None:
        name, version = system.create_snapshotted(
            "calls = 0\ndef handler(e, c):\n global calls\n calls += 1\n return calls"
        )
        assert [system.invoke(name, version).json() for _ in range(4)] == [1, 2, 3, 4]

    def test_crash_and_timeout_of_a_restored_environment(self, system: System) -> None:
        name, version = system.create_snapshotted(
            "import os, time\ndef handler(e, c):\n"
            " if e.get('k') == 'exit': os._exit(9)\n if e.get('k') == 'sleep': time.sleep(30)\n return 'fine'",
            Timeout=2,
        )
        crash = system.invoke(name, version, {"k": "exit"})
        assert crash.json()["errorType"] == "Runtime.ExitError"
        slow = system.invoke(name, version, {"k": "sleep"})
        assert "Task timed out after 2.00 seconds" in slow.json()["errorMessage"]
        assert system.invoke(name, version).json() == "fine"

    def test_memory_limit_holds_after_a_restore(self, system: System) -> None:
        name, version = system.create_snapshotted(
            "def handler(e, c):\n food = bytearray(e.get('mib', 0) << 20)\n"
            " for at in range(0, len(food), 4096): food[at] = 1\n return 'fine'",
            MemorySize=128,
        )
        answer = system.invoke(name, version, {"mib": 400})
        assert "signal: killed" in answer.json()["errorMessage"]
        assert system.invoke(name, version).json() == "fine"

    def test_threads_of_the_function_come_back(self, system: System) -> None:
        name, version = system.create_snapshotted("""
            import queue, threading
            jobs, results = queue.Queue(), queue.Queue()
            def work():
                while True:
                    results.put(jobs.get() * 2)
            for _ in range(8):
                threading.Thread(target=work, daemon=True).start()
            def handler(event, context):
                for number in range(100):
                    jobs.put(number)
                return sum(results.get(timeout=5) for _ in range(100))
            """)
        assert system.invoke(name, version).json() == 9900

    def test_open_files_pipes_and_timers_come_back(self, system: System) -> None:
        name, version = system.create_snapshotted("""
            import os, select, socket, tempfile, time
            task = open("/var/task/app.py"); task.readline(); where = task.tell()
            scratch = open("/tmp/scratch", "w+"); scratch.write("kept"); scratch.flush()
            reader, writer = os.pipe(); os.write(writer, b"in the pipe")
            poller = select.epoll(); poller.register(reader, select.EPOLLIN)
            def handler(event, context):
                scratch.seek(0)
                return {"task": task.tell() == where and len(task.read()) > 10, "scratch": scratch.read(),
                        "ready": [fd == reader for fd, _ in poller.poll(1)],
                        "pipe": os.read(reader, 99).decode()}
            """)
        assert system.invoke(name, version).json() == {
            "task": True,
            "scratch": "kept",
            "ready": [True],
            "pipe": "in the pipe",
        }


class TestClones:
    @pytest.fixture(scope="class")
    @classmethod
    def pair(cls, system: System) -> list[dict]:
        """What two environments answered that were restored from one snapshot and ran at the same time."""
        name, version = system.create_snapshotted(RANDOM)
        return overlapping(system, name, version, 2)

    def test_they_come_from_one_init(self, pair: list[dict]) -> None:
        assert pair[0]["init"] == pair[1]["init"]

    @pytest.mark.parametrize("source", ["urandom", "ssl", "random", "temp", "uuid4"])
    def test_they_differ(self, pair: list[dict], source: str) -> None:
        assert pair[0][source] != pair[1][source]

    def test_their_wall_clock_is_right(self, pair: list[dict]) -> None:
        for answer in pair:
            assert abs(answer["time"] - time.time()) < 60

    def test_eight_clones_all_differ(self, system: System) -> None:
        name, version = system.create_snapshotted(RANDOM)
        answers = overlapping(system, name, version, 8)
        for source in ("urandom", "ssl", "random", "temp", "uuid4"):
            assert len({answer[source] for answer in answers}) == 8, source

    def test_wall_clock_moves_and_monotonic_time_continues(self, cold_system: System) -> None:
        name, version = cold_system.create_snapshotted(
            "import time\nWALL, MONO = time.time(), time.monotonic()\n"
            "def handler(e, c): return [time.time() - WALL, time.monotonic() - MONO, time.time()]"
        )
        time.sleep(3)
        wall_s, monotonic_s, now_s = cold_system.invoke(name, version).json()
        assert wall_s >= 3 and abs(now_s - time.time()) < 2
        assert 0 <= monotonic_s < 60

    def test_numpy_legacy_generator_differs(self, system: System) -> None:
        package = numpy_package(system)
        name, version = system.create_snapshotted(package, MemorySize=512)
        answers = overlapping(system, name, version, 2)
        assert answers[0]["init"] == answers[1]["init"]
        assert answers[0]["numpy"] != answers[1]["numpy"]
        assert answers[0]["product"] == answers[1]["product"] == 64.0

    def test_writes_of_one_clone_are_not_seen_by_another(self, system: System) -> None:
        name, version = system.create_snapshotted(
            "import time\nopen('/tmp/mark', 'w').write('init')\nseen = []\n"
            "def handler(e, c):\n seen.append(e['me'])\n old = open('/tmp/mark').read()\n"
            " open('/tmp/mark', 'w').write(e['me'])\n time.sleep(0.7)\n return [seen, old, open('/tmp/mark').read()]"
        )
        with ThreadPoolExecutor(2) as callers:
            answers = list(callers.map(lambda me: system.invoke(name, version, {"me": me}).json(), ["a", "b"]))
        assert answers == [[["a"], "init", "a"], [["b"], "init", "b"]]


class TestHooks:
    def test_order_and_files_of_init(self, cold_system: System) -> None:
        name, version = cold_system.create_snapshotted(HOOKS)
        for _ in range(2):
            time.sleep(PAUSE_S)
            answer = cold_system.invoke(name, version).json()
            assert answer == {"events": ["before-2", "before-1", "after-1", "after-2"], "file": "made at init"}

    def test_hooks_do_not_run_without_snapstart(self, system: System) -> None:
        assert system.invoke(system.create(HOOKS)).json()["events"] == []

    def test_random_state_is_fresh_before_the_functions_hook(self, system: System) -> None:
        name, version = system.create_snapshotted("""
            import random, time
            from snapshot_restore_py import register_after_restore
            random.random()
            drawn = []
            register_after_restore(lambda: drawn.append(random.random()))
            def handler(event, context):
                time.sleep(event["sleep"]); return {"drawn": drawn[0]}
            """)
        answers = overlapping(system, name, version, 2)
        assert answers[0]["drawn"] != answers[1]["drawn"]

    def test_a_failing_before_hook_fails_the_version(self, system: System) -> None:
        name, version = publish_failing(
            system,
            "from snapshot_restore_py import register_before_snapshot\n"
            "@register_before_snapshot\ndef broken(): raise ValueError('cannot prepare')\ndef handler(e, c): return 1",
        )
        assert version["State"] == "Failed" and version["StateReasonCode"].startswith("FunctionError")
        assert "cannot prepare" in wait_for_log(system, name, "cannot prepare")

    def test_a_failing_after_hook_is_a_snapstart_exception(self, system: System) -> None:
        name, version = system.create_snapshotted(
            "from snapshot_restore_py import register_after_restore\n"
            "@register_after_restore\ndef broken(): raise ValueError('cannot renew')\ndef handler(e, c): return 1",
        )
        with pytest.raises(ClientError) as error:
            system.client.invoke(FunctionName=name, Qualifier=version)
        assert error.value.response["Error"]["Code"] == "SnapStartException"
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert "cannot renew" in wait_for_log(system, name, "cannot renew")

    def test_an_after_hook_that_takes_too_long(self, system: System) -> None:
        name, version = system.create_snapshotted(
            "import time\nfrom snapshot_restore_py import register_after_restore\n"
            "@register_after_restore\ndef slow(): time.sleep(60)\ndef handler(e, c): return 1",
            Timeout=30,
        )
        started = time.monotonic()
        with pytest.raises(ClientError) as error:
            system.client.invoke(FunctionName=name, Qualifier=version)
        assert error.value.response["Error"]["Code"] == "SnapStartTimeoutException"
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 408
        assert 9 < time.monotonic() - started < 20


class TestDelete:
    @pytest.mark.parametrize("qualifier", [True, False], ids=["version", "function"])
    def test_deleting_frees_the_disk(self, own_system: System, qualifier: bool) -> None:
        name, version = own_system.create_snapshotted(
            f"ballast = __import__('os').urandom({30 << 20})\ndef handler(e, c): return 1"
        )
        assert own_system.invoke(name, version).json() == 1
        full = snapshot_bytes(own_system)
        assert full > 25 << 20
        if qualifier:
            own_system.client.delete_function(FunctionName=name, Qualifier=version)
        else:
            own_system.client.delete_function(FunctionName=name)
        deadline = time.monotonic() + 20
        while snapshot_bytes(own_system) > 5 << 20 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert snapshot_bytes(own_system) <= 5 << 20
        assert own_system.server.snapshots() == []


class TestRuntimes:
    @pytest.mark.parametrize("python", [f"python3.{minor}" for minor in range(9, 15)])
    def test_every_python_that_is_here(self, system: System, python: str) -> None:
        try:
            runtimes.install_best(system.server.binary, paths.CACHE / "tests", [python])
        except RuntimeError as error:
            missing(f"{python}: {error}")
        name, version = system.create_snapshotted(RANDOM, Runtime=python)
        answers = overlapping(system, name, version, 2)
        assert answers[0]["init"] == answers[1]["init"] and answers[0]["random"] != answers[1]["random"]
        assert answers[0]["ssl"] != answers[1]["ssl"]


def overlapping(system: System, name: str, version: str, count: int) -> list[dict]:
    """Invokes `count` times at once; each invocation lasts long enough that every one needs its own environment."""
    with ThreadPoolExecutor(count) as callers:
        answers = list(callers.map(lambda _: system.invoke(name, version, {"sleep": 0.8}), range(count)))
    for answer in answers:
        assert answer.status == 200 and answer.function_error is None, answer.payload
        assert duration_ms(answer.log, "Restore Duration") is not None, f"not restored: {answer.log}"
    return [answer.json() for answer in answers]


def snapshot_bytes(system: System) -> int:
    """What the snapshots of the server take on disk."""
    files = (system.server.data_dir / "snapshots").rglob("*")
    return sum(path.stat().st_blocks * 512 for path in files if path.is_file())


def wait_for_log(system: System, name: str, part: str) -> str:
    """The function's log as soon as it holds `part`; the log files are written off the request's path."""
    deadline = time.monotonic() + 5
    while part not in system.logs(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    return system.logs(name)


def numpy_package(system: System) -> bytes:
    """A zip with numpy, taken from the pandas example's package."""
    command = [sys.executable, str(paths.EXAMPLES / "build"), "pandas-csv", "--runtime", system.runtime]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        missing(f"numpy cannot be fetched: {done.stderr.strip()[-300:]}")
    code = """
        import time, uuid, numpy
        INIT_ID = uuid.uuid4().hex
        numpy.random.seed(7); numpy.random.rand()
        A = numpy.ones((64, 64)) @ numpy.ones((64, 64))
        def handler(event, context):
            time.sleep(event["sleep"])
            product = (numpy.ones((64, 64)) @ numpy.ones((64, 64)))[0, 0]
            return {"init": INIT_ID, "numpy": float(numpy.random.rand()), "product": float(product)}
        """
    kept = {}
    with zipfile.ZipFile(Path(done.stdout.split()[-1])) as package:
        for entry in package.namelist():
            if entry.split("/")[0].startswith("numpy"):
                kept[entry] = package.read(entry)
    return zip_of({"app.py": code, **kept})
