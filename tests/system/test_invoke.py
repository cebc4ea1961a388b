"""Invoke, by boto3 and bare HTTP: payloads, errors, limits, logs, reuse, and what a function sees."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError
from conftest import System

KINDS = """
import json, os, signal, sys, time
calls = 0
def handler(event, context):
    global calls
    calls += 1
    kind = event.get("kind") if isinstance(event, dict) else None
    if kind == "raise":
        raise ValueError("boom")
    if kind == "exit":
        os._exit(event["status"])
    if kind == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "sleep":
        time.sleep(event["seconds"])
    if kind == "eat":
        food = bytearray(event["mib"] << 20)
        for at in range(0, len(food), 4096):
            food[at] = 1
    if kind == "print":
        print("to stdout"); print("to stderr", file=sys.stderr)
    if kind == "big":
        return "x" * event["bytes"]
    if kind == "context":
        client = context.client_context
        return {"id": context.aws_request_id, "arn": context.invoked_function_arn, "name": context.function_name,
                "version": context.function_version, "memory": context.memory_limit_in_mb,
                "left": context.get_remaining_time_in_millis(), "group": context.log_group_name,
                "custom": client.custom if client else None}
    return {"event": event, "calls": calls}
"""


@pytest.fixture(scope="module")
def kinds(system: System) -> str:
    return system.create(KINDS, Timeout=3, MemorySize=128)


class TestAnswers:
    def test_echo_and_reuse(self, system: System, kinds: str) -> None:
        first = system.invoke(kinds, event={"a": [1, "ü", None]})
        assert first.status == 200 and first.function_error is None and first.version == "$LATEST"
        assert first.json()["event"] == {"a": [1, "ü", None]}
        assert system.invoke(kinds).json()["calls"] == first.json()["calls"] + 1

    def test_request_id_is_the_functions(self, system: System, kinds: str) -> None:
        answer = system.client.invoke(FunctionName=kinds, Payload=json.dumps({"kind": "context"}))
        seen = json.load(answer["Payload"])
        assert seen["id"] == answer["ResponseMetadata"]["RequestId"]
        assert seen["name"] == kinds and seen["version"] == "$LATEST" and int(seen["memory"]) == 128
        assert seen["arn"].endswith(f":function:{kinds}")
        assert 0 < seen["left"] <= 3000

    def test_client_context(self, system: System, kinds: str) -> None:
        context = base64.b64encode(json.dumps({"custom": {"k": "v"}}).encode()).decode()
        answer = system.client.invoke(
            FunctionName=kinds, ClientContext=context, Payload=json.dumps({"kind": "context"})
        )
        assert json.load(answer["Payload"])["custom"] == {"k": "v"}

    def test_dry_run(self, system: System, kinds: str) -> None:
        answer = system.client.invoke(FunctionName=kinds, InvocationType="DryRun")
        assert answer["StatusCode"] == 204 and answer["Payload"].read() == b""

    def test_log_tail(self, system: System, kinds: str) -> None:
        answer = system.client.invoke(FunctionName=kinds, LogType="Tail", Payload=b'{"kind": "print"}')
        log = base64.b64decode(answer["LogResult"]).decode()
        request_id = answer["ResponseMetadata"]["RequestId"]
        places = [
            log.find(part)
            for part in (f"START RequestId: {request_id} Version: $LATEST", "to stdout", f"END RequestId: {request_id}")
        ]
        assert places == sorted(places) and -1 not in places, log
        assert "to stderr" in log
        assert f"REPORT RequestId: {request_id}\tDuration: " in log
        assert "\tMemory Size: 128 MB\tMax Memory Used: " in log
        assert "LogResult" not in system.client.invoke(FunctionName=kinds)

    def test_unknown_function_and_qualifier(self, system: System, kinds: str) -> None:
        for reference in ({"FunctionName": "nope"}, {"FunctionName": kinds, "Qualifier": "77"}):
            with pytest.raises(ClientError) as error:
                system.client.invoke(**reference)
            assert error.value.response["Error"]["Code"] == "ResourceNotFoundException"


class TestFailures:
    def test_exception(self, system: System, kinds: str) -> None:
        answer = system.invoke(kinds, event={"kind": "raise"})
        assert answer.status == 200 and answer.function_error == "Unhandled"
        body = answer.json()
        assert (body["errorMessage"], body["errorType"]) == ("boom", "ValueError")
        assert body["stackTrace"] and "requestId" in body

    @pytest.mark.parametrize(
        ("event", "message"),
        [
            ({"kind": "exit", "status": 0}, "Runtime exited without providing a reason"),
            ({"kind": "exit", "status": 7}, "Runtime exited with error: exit status 7"),
            ({"kind": "signal"}, "Runtime exited with error: signal: killed"),
        ],
    )
    def test_crash_then_the_next_invocation_works(self, system: System, kinds: str, event: dict, message: str) -> None:
        answer = system.invoke(kinds, event=event)
        assert answer.status == 200 and answer.function_error == "Unhandled"
        body = answer.json()
        assert body["errorType"] == "Runtime.ExitError"
        assert body["errorMessage"].startswith("RequestId: ") and body["errorMessage"].endswith(f" Error: {message}")
        assert system.invoke(kinds).json()["calls"] == 1

    def test_timeout_then_the_next_invocation_works(self, system: System, kinds: str) -> None:
        answer = system.invoke(kinds, event={"kind": "sleep", "seconds": 30})
        assert 2900 < answer.elapsed_ms < 6000
        assert answer.function_error == "Unhandled"
        assert "Task timed out after 3.00 seconds" in answer.json()["errorMessage"]
        assert system.invoke(kinds).json()["calls"] == 1

    def test_out_of_memory_then_the_next_invocation_works(self, system: System, kinds: str) -> None:
        answer = system.invoke(kinds, event={"kind": "eat", "mib": 400})
        assert answer.function_error == "Unhandled"
        body = answer.json()
        assert body["errorType"] in ("Runtime.OutOfMemory", "Runtime.ExitError")
        assert "signal: killed" in body["errorMessage"]
        assert system.invoke(kinds).json()["calls"] == 1

    def test_init_error(self, system: System) -> None:
        name = system.create("raise RuntimeError('no start')")
        answer = system.invoke(name)
        assert answer.function_error == "Unhandled"
        body = answer.json()
        assert body["errorType"] == "RuntimeError" and body["errorMessage"] == "no start"

    @pytest.mark.parametrize(
        ("handler", "kind"), [("none.handler", "Runtime.ImportModuleError"), ("app.none", "Runtime.HandlerNotFound")]
    )
    def test_wrong_handler(self, system: System, handler: str, kind: str) -> None:
        answer = system.invoke(system.create(KINDS, Handler=handler))
        assert answer.function_error == "Unhandled" and answer.json()["errorType"] == kind

    def test_init_that_takes_too_long(self, system: System) -> None:
        answer = system.invoke(system.create("import time; time.sleep(60)", Timeout=2))
        assert answer.function_error == "Unhandled"
        assert "timed out" in answer.json()["errorMessage"].lower()


class TestLimits:
    def test_six_megabytes_in_and_out(self, system: System) -> None:
        name = system.create(KINDS, MemorySize=512, Timeout=20)
        answer = system.client.invoke(FunctionName=name, Payload=json.dumps("x" * 6_200_000))
        assert len(json.load(answer["Payload"])["event"]) == 6_200_000

    def test_a_request_that_is_too_large(self, system: System, kinds: str) -> None:
        with pytest.raises(ClientError) as error:
            system.client.invoke(FunctionName=kinds, Payload=json.dumps("x" * 6_291_456))
        response = error.value.response
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 413
        assert response["Error"]["Code"] in ("RequestEntityTooLargeException", "RequestTooLargeException")

    def test_a_response_that_is_too_large(self, system: System) -> None:
        name = system.create(KINDS, MemorySize=512)
        answer = system.invoke(name, event={"kind": "big", "bytes": 7_000_000})
        assert answer.function_error == "Unhandled"
        assert answer.json()["errorType"] == "Function.ResponseSizeTooLarge"
        assert system.invoke(name).status == 200


class TestConcurrency:
    def test_concurrent_invocations_scale_out(self, system: System) -> None:
        name = system.create(
            "import os, time, uuid\nME = uuid.uuid4().hex\n"
            "def handler(event, context):\n    time.sleep(0.7)\n    return ME\n"
        )
        started = time.monotonic()
        with ThreadPoolExecutor(4) as callers:
            answers = list(callers.map(lambda _: system.invoke(name).json(), range(4)))
        assert len(set(answers)) == 4
        assert time.monotonic() - started < 10

    def test_background_threads_stand_still_between_invocations(self, system: System) -> None:
        name = system.create("""
            import threading, time
            ticks = 0
            def tick():
                global ticks
                while True:
                    time.sleep(0.02); ticks += 1
            threading.Thread(target=tick, daemon=True).start()
            def handler(event, context):
                return ticks
            """)
        first = system.invoke(name).json()
        time.sleep(3)
        assert system.invoke(name).json() - first < 75


class TestEnvironment:
    @pytest.fixture(scope="class")
    @classmethod
    def seen(cls, system: System) -> dict:
        name = system.create(
            """
            import os, resource, socket, sys, tempfile
            def attempt(action):
                try:
                    return repr(action())
                except Exception as error:
                    return type(error).__name__
            def handler(event, context):
                status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
                return {
                    "env": dict(os.environ), "cwd": os.getcwd(), "uid": os.getuid(), "gid": os.getgid(),
                    "groups": os.getgroups(), "path": sys.path, "pids": [p for p in os.listdir("/proc") if p.isdigit()],
                    "caps": status["CapEff"].strip(), "bounding": status["CapBnd"].strip(),
                    "no_new_privs": status["NoNewPrivs"].strip(), "seccomp": status.get("Seccomp", "").strip(),
                    "root": sorted(os.listdir("/")), "files": resource.getrlimit(resource.RLIMIT_NOFILE),
                    "write_task": attempt(lambda: open("/var/task/x", "w")),
                    "write_root": attempt(lambda: open("/x", "w")),
                    "write_usr": attempt(lambda: open("/usr/x", "w")),
                    "write_tmp": attempt(lambda: open("/tmp/x", "w").write("1")),
                    "host_secret": attempt(lambda: os.listdir(event["data_dir"])),
                    "host_home": attempt(lambda: os.listdir("/root")),
                    "shadow": attempt(lambda: open("/etc/shadow").read()),
                    "mount": attempt(lambda: os.listdir("/sys")),
                    "outside": attempt(lambda: socket.create_connection(("127.0.0.1", event["port"]), 2)),
                    "kill_init": attempt(lambda: os.kill(1, 9)),
                    "hostname": socket.gethostname(), "certs": os.path.exists("/etc/ssl/certs"),
                    "tmp_mib": os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_frsize >> 20,
                    "descriptors": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                                          if os.path.exists(f"/proc/self/fd/{fd}")),
                    "urandom": len(os.urandom(8)), "passwd": open("/etc/passwd").read(),
                }
            """,
            MemorySize=128,
            Environment={"Variables": {"COLOR": "green"}},
        )
        answer = system.invoke(name, event={"data_dir": str(system.server.data_dir), "port": system.server.port})
        assert answer.function_error is None, answer.payload
        return {"name": name, **answer.json()}

    def test_variables(self, seen: dict, system: System) -> None:
        env = seen["env"]
        expected = {
            "COLOR": "green",
            "_HANDLER": "app.handler",
            "AWS_LAMBDA_FUNCTION_NAME": seen["name"],
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{system.runtime}",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{seen['name']}",
            "LAMBDA_TASK_ROOT": "/var/task",
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "TZ": ":UTC",
            "LANG": "en_US.UTF-8",
        }
        assert {key: env.get(key) for key in expected} == expected
        for key in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_LOG_STREAM_NAME"):
            assert env.get(key), key
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            assert env.get(key), key

    def test_the_functions_key_is_not_the_servers(self, seen: dict, system: System) -> None:
        assert system.server.credentials()[1] not in json.dumps(seen)

    def test_nothing_of_the_server_leaks_into_the_environment(self, seen: dict) -> None:
        assert not {"HOME", "USER", "CARGO_HOME", "SSH_AUTH_SOCK", "REKINDLE_BINARY"} & set(seen["env"])

    def test_user_and_privileges(self, seen: dict) -> None:
        assert (seen["uid"], seen["gid"]) == (993, 990)
        assert set(seen["groups"]) <= {990}
        assert int(seen["caps"], 16) == 0 and seen["no_new_privs"] == "1"
        assert "sbx_user1051" in seen["passwd"]

    def test_places(self, seen: dict) -> None:
        assert seen["cwd"] == "/var/task" and seen["path"][0] == "/var/task"
        for key in ("write_task", "write_root", "write_usr"):
            assert seen[key] in ("OSError", "PermissionError"), key
        assert seen["write_tmp"] == "1"
        assert 500 <= seen["tmp_mib"] <= 512
        assert seen["files"][0] == 1024
        assert seen["certs"]

    def test_the_host_is_out_of_reach(self, seen: dict) -> None:
        for key in ("host_secret", "host_home"):
            assert seen[key] in ("FileNotFoundError", "PermissionError", "[]"), key
        assert seen["shadow"] in ("FileNotFoundError", "PermissionError")
        assert seen["kill_init"] in ("PermissionError", "ProcessLookupError")
        assert seen["outside"] in ("ConnectionRefusedError", "TimeoutError", "OSError")
        assert len(seen["pids"]) <= 3
        assert not {"home", "boot", "mnt", "srv"} & set(seen["root"])

    def test_no_descriptor_of_the_server_leaks(self, seen: dict, system: System) -> None:
        assert not [target for target in seen["descriptors"] if str(system.server.data_dir) in target]
