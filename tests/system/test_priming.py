"""Priming end to end: warm-up events run before the snapshot, hooks keep their places, and failures are told."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, WaiterError
from conftest import System
from harness import paths, runtimes
from harness.api import publish
from harness.figures import duration_ms

EVENTS, EVENT = "REKINDLE_WARM_UP_EVENTS", "REKINDLE_WARM_UP_EVENT"

LIFE = """
import os, random, threading, uuid
from snapshot_restore_py import register_after_restore, register_before_snapshot
INIT_ID, life = uuid.uuid4().hex, ["init"]
register_before_snapshot(lambda: life.append(f"before({len(handled)})"))
register_after_restore(lambda: life.append("after"))
handled = []
def handler(event, context):
    custom = context.client_context.custom if context.client_context else {}
    handled.append(context.aws_request_id)
    life.append("event " + custom.get("rekindle-warm-up", "real"))
    print("LIFE", life[-1], event, context.get_remaining_time_in_millis() > 0, "_X_AMZN_TRACE_ID" in os.environ)
    import time, tempfile
    time.sleep(event.get("sleep", 0))
    return {"init": INIT_ID, "life": life, "ids": handled, "arn": context.invoked_function_arn,
            "random": random.random(), "temp": tempfile.mktemp()}
"""

LAZY = """
import sys, time
def handler(event, context):
    began = time.perf_counter()
    import asyncio, decimal, email.message, fractions, sqlite3, xml.dom.minidom, unittest.mock
    return (time.perf_counter() - began) * 1000
"""


def variables(events: object, event: str | None = None) -> dict:
    declared = {EVENTS: str(events)} if event is None else {EVENTS: str(events), EVENT: event}
    return {"Environment": {"Variables": declared}}


def primed(system: System, code: str, events: int = 2, event: str | None = None, **settings: object) -> tuple[str, str]:
    return system.create_snapshotted(code, **variables(events, event), **settings)


def log_of(system: System, name: str, part: str) -> str:
    """The function's log as soon as it holds `part`: the files are written off the request's path."""
    deadline = time.monotonic() + 5
    while part not in system.logs(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    return system.logs(name)


def restored(system: System, name: str, version: str, event: dict) -> dict:
    answer = system.invoke(name, version, event)
    assert answer.function_error is None, answer.payload
    assert duration_ms(answer.log, "Restore Duration") is not None, f"not restored: {answer.log}"
    return answer.json()


class TestOrder:
    @pytest.mark.parametrize("python", [f"python3.{minor}" for minor in range(9, 15)])
    def test_events_then_hooks_then_the_snapshot(self, system: System, python: str) -> None:
        try:
            runtimes.install_best(system.server.binary, paths.CACHE / "tests", [python])
        except RuntimeError as error:
            pytest.skip(f"DID NOT RUN: {python}: {error}")
        name, version = primed(system, LIFE, 2, '{"warm": true}', Runtime=python)
        answer = restored(system, name, version, {})
        assert answer["life"] == ["init", "event 1", "event 2", "before(2)", "after", "event real"]
        assert len(set(answer["ids"])) == 3
        assert answer["arn"].endswith(f"function:{name}:{version}")

    def test_every_clone_runs_its_hook_once_and_differs(self, system: System) -> None:
        name, version = primed(system, LIFE)
        with ThreadPoolExecutor(4) as callers:
            answers = list(callers.map(lambda _: restored(system, name, version, {"sleep": 0.8}), range(4)))
        for answer in answers:
            assert answer["life"] == ["init", "event 1", "event 2", "before(2)", "after", "event real"]
            assert answer["init"] == answers[0]["init"]
        for source in ("random", "temp"):
            assert len({answer[source] for answer in answers}) == 4, source
        again = system.invoke(name, version).json()
        assert again["life"].count("after") == 1 and again["life"][-2:] == ["event real", "event real"]

    def test_the_publish_log_says_what_ran(self, system: System) -> None:
        name, _ = primed(system, LIFE, 2, '{"warm": true}')
        log = log_of(system, name, "INIT_REPORT")
        parts = ["INIT_START", "LIFE event 1 {'warm': True} True True", "WARM_UP RequestId: ", "Event: 1 of 2"]
        parts += ["LIFE event 2", "Event: 2 of 2", "WARM_UP_REPORT Events: 2 of 2\tFailed: 0", "INIT_REPORT"]
        places = [log.find(part) for part in parts]
        assert -1 not in places and places == sorted(places), log
        assert "START RequestId" not in log and "WARNING" not in log

    def test_latest_and_versions_without_snapstart_are_not_warmed(self, system: System) -> None:
        name = system.create(LIFE, **variables(2))
        version = system.publish(name, snap_start=False)
        for qualifier in ("$LATEST", version):
            assert system.invoke(name, qualifier).json()["life"] == ["init", "event real"]

    def test_a_changed_declaration_is_a_new_version(self, system: System) -> None:
        name, version = primed(system, LIFE, 1)
        system.client.update_function_configuration(FunctionName=name, **variables(3))
        system.client.get_waiter("function_updated_v2").wait(FunctionName=name)
        newer = system.publish(name)
        assert newer != version
        assert len(restored(system, name, newer, {})["ids"]) == 4
        assert len(restored(system, name, version, {})["ids"]) == 2

    def test_after_a_failed_hook_the_caller_is_told_as_ever(self, system: System) -> None:
        name, version = primed(
            system,
            "from snapshot_restore_py import register_after_restore\n"
            "@register_after_restore\ndef broken(): raise ValueError('cannot renew')\ndef handler(e, c): return 1",
        )
        with pytest.raises(ClientError) as error:
            system.client.invoke(FunctionName=name, Qualifier=version)
        assert error.value.response["Error"]["Code"] == "SnapStartException"

    def test_hooks_that_are_registered_by_the_warm_up_run_too(self, system: System) -> None:
        name, version = primed(
            system,
            "seen = []\ndef handler(e, c):\n"
            " if not seen:\n"
            "  from snapshot_restore_py import register_after_restore, register_before_snapshot\n"
            "  register_before_snapshot(seen.append, 'before'); register_after_restore(seen.append, 'after')\n"
            "  seen.append('first')\n return seen",
            1,
        )
        assert restored(system, name, version, {}) == ["first", "before", "after"]


class TestFailures:
    def test_an_error_of_the_handler_is_a_warning(self, system: System) -> None:
        code = "def handler(e, c):\n if e.get('bad'): raise ValueError('not this one')\n return 'fine'"
        name, version = primed(system, code, 2, '{"bad": true}')
        assert restored(system, name, version, {}) == "fine"
        log = log_of(system, name, "WARNING")
        assert "[ERROR] ValueError: not this one" in log
        assert "Event: 2 of 2\tDuration: " in log and "Status: error\tError Type: ValueError" in log
        assert "WARNING 2 of 2 warm-up events failed, the first one with ValueError" in log
        (entry,) = [entry for entry in system.server.snapshots() if entry["function"] == name]
        assert any("warm-up events failed" in warning for warning in entry["warnings"])

    @pytest.mark.parametrize("crash", ["os._exit(3)", "os.kill(os.getpid(), 9)", "raise SystemExit(4)"])
    def test_a_crash_fails_the_version(self, system: System, crash: str) -> None:
        version = self.failing(system, f"import os\ndef handler(e, c): {crash}", 3)
        assert version["State"] == "Failed" and version["StateReasonCode"].startswith("FunctionError")
        assert "warm-up event 1 of 3: Runtime exited with error: " in version["StateReason"], version["StateReason"]

    def test_a_failing_before_hook_after_the_events_fails_the_version(self, system: System) -> None:
        version = self.failing(
            system,
            "from snapshot_restore_py import register_before_snapshot\n"
            "@register_before_snapshot\ndef broken(): raise ValueError('cannot prepare')\ndef handler(e, c): return 1",
            1,
        )
        assert version["State"] == "Failed" and "ValueError: cannot prepare" in version["StateReason"]

    @pytest.mark.parametrize(
        ("declared", "part"),
        [
            ({EVENTS: "many"}, "REKINDLE_WARM_UP_EVENTS must be a whole number from 0 to 1000"),
            ({EVENTS: "1001"}, "REKINDLE_WARM_UP_EVENTS must be a whole number from 0 to 1000"),
            ({EVENTS: "1", EVENT: "{"}, "REKINDLE_WARM_UP_EVENT must be JSON"),
            ({EVENT: "{}"}, "without REKINDLE_WARM_UP_EVENTS"),
        ],
    )
    def test_bad_declarations_are_refused(self, system: System, declared: dict, part: str) -> None:
        code = "def handler(e, c): return 1"
        with pytest.raises(ClientError) as error:
            system.create(code, Environment={"Variables": declared})
        assert error.value.response["Error"]["Code"] == "InvalidParameterValueException"
        assert part in error.value.response["Error"]["Message"]
        name = system.create(code)
        with pytest.raises(ClientError) as error:
            system.client.update_function_configuration(FunctionName=name, Environment={"Variables": declared})
        assert part in error.value.response["Error"]["Message"]

    @staticmethod
    def failing(system: System, code: str, events: int) -> dict:
        name = system.create(code, **variables(events))
        with pytest.raises(WaiterError):
            publish(system.client, name, snap_start=True)
        return system.client.get_function_configuration(FunctionName=name, Qualifier="1")


class TestWorth:
    def test_the_events_leave_nothing_behind_that_is_slow(self, system: System) -> None:
        name, version = primed(system, "def handler(e, c): return 1", 3)
        durations = [duration_ms(system.invoke(name, version).log, "\tDuration") for _ in range(5)]
        assert sorted(durations)[2] < 20, f"a delayed acknowledgment takes 40 ms: {durations}"

    def test_lazy_imports_are_in_the_snapshot(self, system: System) -> None:
        plain = restored(system, *system.create_snapshotted(LAZY), {})
        warm = restored(system, *primed(system, LAZY, 1), {})
        assert warm < 1 < plain, f"imports in the first request: {warm:.2f} ms primed, {plain:.2f} ms not"
