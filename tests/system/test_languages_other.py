"""Custom runtimes (Bash, Rust, Go, Python as `bootstrap`) and Ruby: handlers, SnapStart without hooks, clones.

The clients for Rust and Go are the published ones. RubyGems is not asked: a gem in `ruby/` stands in for the AWS
client, built and installed as the real one is. A test whose compiler this machine lacks says so.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from botocore.exceptions import WaiterError
from conftest import Runtime, System, missing
from harness.api import publish
from languages import assert_all_differ, clones, event_of, example, install, log_of, package, restored_one_by_one

HERE = Path(__file__).resolve().parent
CUSTOM = "provided.al2023"
TOOLS = {"bash-hello": "bash", "rust-hello": "cargo", "go-hello": "go"}


@pytest.fixture(scope="session")
def custom(binary: Path, runtime: Runtime) -> str:
    install(binary, runtime.home, CUSTOM)
    return CUSTOM


@pytest.fixture(scope="session")
def ruby(binary: Path, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The runtime of this machine's Ruby, with the gem that stands in for the AWS client."""
    if not shutil.which("ruby") or not shutil.which("gem"):
        missing("ruby and gem (apt install ruby)")
    release = subprocess.run(
        ["ruby", "-e", "print RUBY_VERSION[/\\d+\\.\\d+/]"], check=True, capture_output=True, text=True
    )
    gem = tmp_path_factory.mktemp("gem") / "aws_lambda_ric.gem"
    command = ["gem", "build", "aws_lambda_ric.gemspec", "--output", str(gem)]
    subprocess.run(command, check=True, cwd=HERE / "ruby", capture_output=True)
    install(binary, runtime.home, f"ruby{release.stdout}", "--client", gem)
    return f"ruby{release.stdout}"


SERVE = """
import http.client, json, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def call(method, path, body=None):
    api.request(method, "/2018-06-01/runtime/" + path, body)
    answer = api.getresponse()
    return answer.headers["Lambda-Runtime-Aws-Request-Id"], answer.read()
while True:
    request, event = call("GET", "invocation/next")
    call("POST", f"invocation/{request}/response", json.dumps(answer_to(json.loads(event))))
"""

ENVIRONMENT = "#!/usr/bin/env python3\nimport os\ndef answer_to(event): return dict(os.environ)\n" + SERVE

HELPER = """#!/bin/bash
# A helper process keeps the count and is asked through a pair of pipes; a second one only sleeps.
coproc helper { total=0; while read -r add; do total=$((total + add)); echo "$total"; done; }
sleep 1000 &
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
headers=$(mktemp)
while true; do
    event=$(curl -s -D "$headers" "$api/next") || exit 1
    id=$(awk 'tolower($1) == "lambda-runtime-aws-request-id:" { sub("\\r", ""); print $2 }' "$headers")
    echo "$event" >&"${helper[1]}"
    read -r total <&"${helper[0]}"
    kill -0 $! && sleeping=true || sleeping=false
    answer="{\\"total\\": $total, \\"pid\\": $$, \\"sleeping\\": $sleeping}"
    curl -s -o /dev/null -d "$answer" "$api/$id/response" || exit 1
done
"""

OWN_SERVER = """#!/usr/bin/env python3
# An HTTP server of the function's own, asked over a connection that was opened at init.
import http.client, http.server, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
kept = http.client.HTTPConnection("127.0.0.1", 8080)
def ask():
    kept.request("GET", "/")
    return kept.getresponse().read().decode()
ask()
def answer_to(event): return [ask(), ask()]
"""


class TestCustom:
    @pytest.mark.parametrize("name", TOOLS)
    def test_an_example_starts_and_is_restored(self, cold_system: System, custom: str, name: str) -> None:
        if not shutil.which(TOOLS[name]):
            missing(f"{TOOLS[name]} to build {name}")
        event = event_of(name)
        function = cold_system.create(example(name, custom), Runtime=custom, Handler="bootstrap")
        cold = cold_system.invoke(function, event=event)
        assert cold.function_error is None and cold.json()["event"] == event, cold.payload
        assert "Init Duration" in cold.log
        assert "INIT_START Runtime Version: provided:al2023.v1" in log_of(cold_system, function, "INIT_START")
        version = cold_system.publish(function)
        answers = restored_one_by_one(cold_system, function, version, event)
        assert {answer["invocations"] for answer in answers} == {1}
        assert len({answer["initId"] for answer in answers}) == 1
        fresh = [field for field in ("requestId", "random") if field in answers[0]]
        assert_all_differ(answers, fresh)

    def test_a_restored_environment_goes_on(self, system: System, custom: str) -> None:
        function = system.create(example("bash-hello", custom), Runtime=custom, Handler="bootstrap")
        version = system.publish(function)
        counts = []
        for _ in range(4):
            counts.append(system.invoke(function, version, {}).json()["invocations"])
            # Until Bash asks for the next event, another caller would get another environment.
            time.sleep(0.3)
        assert counts == [1, 2, 3, 4]

    def test_a_tree_of_processes_comes_back(self, cold_system: System, custom: str) -> None:
        code = package({"bootstrap": HELPER}, ("bootstrap",))
        name, version = cold_system.create_snapshotted(code, Runtime=custom, Handler="any")
        answers = restored_one_by_one(cold_system, name, version, 5)
        assert all(answer["total"] == 5 and answer["sleeping"] for answer in answers), answers
        assert len({answer["pid"] for answer in answers}) == 1

    def test_a_server_of_its_own_is_reached(self, cold_system: System, custom: str) -> None:
        code = package({"bootstrap": OWN_SERVER + SERVE}, ("bootstrap",))
        name, version = cold_system.create_snapshotted(code, Runtime=custom, Handler="any")
        assert restored_one_by_one(cold_system, name, version, {}) == [["ok", "ok"]] * 3

    def test_its_environment_is_that_of_aws(self, system: System, custom: str) -> None:
        code = package({"bootstrap": ENVIRONMENT}, ("bootstrap",))
        name = system.create(code, Runtime=custom, Handler="some.thing")
        seen = system.invoke(name).json()
        assert "AWS_EXECUTION_ENV" not in seen
        assert seen["_HANDLER"] == "some.thing" and seen["LAMBDA_TASK_ROOT"] == "/var/task"

    def test_a_package_without_bootstrap_says_so(self, system: System, custom: str) -> None:
        name = system.create(package({"main": "x"}), Runtime=custom, Handler="any")
        answer = system.invoke(name)
        assert answer.function_error == "Unhandled" and answer.json()["errorType"] == "Runtime.ExitError"
        expected = "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"
        assert expected in log_of(system, name, expected)

    def test_a_bootstrap_that_cannot_run_says_so(self, system: System, custom: str) -> None:
        name = system.create(package({"bootstrap": "#!/bin/sh\n"}), Runtime=custom, Handler="any")
        assert system.invoke(name).function_error == "Unhandled"
        assert "/var/task/bootstrap: permission denied" in log_of(system, name, "permission denied")


RUBY_RANDOM = """
require "digest"
require "openssl"
require "securerandom"
require "tempfile"
INIT = SecureRandom.uuid
OWN = Random.new

def take
  { rand: rand, random: Random.rand(2**60), bytes: Random.bytes(8).unpack1("H*"), shuffle: (1..20).to_a.shuffle,
    sample: (1..1_000_000).to_a.sample, formatted: Random.random_number(2**60), instance: Random.new.rand,
    secure: SecureRandom.hex, uuid: SecureRandom.uuid, openssl: OpenSSL::Random.random_bytes(8).unpack1("H*"),
    key: OpenSSL::PKey::EC.generate("prime256v1").private_key.to_s, temporary: Tempfile.create("x").path }
end

take

def handler(event:, context:)
  sleep(event.fetch("sleep_ms", 0) / 1000.0)
  take.merge(INIT: INIT, OWN: OWN.rand)
end
"""

RUBY_STATE = """
require "socket"
$jobs, $results = Queue.new, Queue.new
8.times { Thread.new { loop { $results << $jobs.pop * 2 } } }
READER, WRITER = IO.pipe
WRITER.write("in the pipe")
WRITER.flush
FILE = File.open("/var/task/function.rb")
FILE.readline
CHILD = IO.popen(["cat"], "r+")
BEGAN = Process.clock_gettime(Process::CLOCK_MONOTONIC)

def handler(event:, context:)
  100.times { |number| $jobs << number }
  CHILD.puts("through a child")
  GC.start
  { sum: 100.times.sum { $results.pop }, pipe: READER.readpartial(99), line: FILE.lineno, child: CHILD.gets.chomp,
    passed: Process.clock_gettime(Process::CLOCK_MONOTONIC) - BEGAN, umlaut: "äö".length, slept: sleep(0.05) }
end
"""

RUBY_HANDLERS = {
    "function.handler": 'def handler(event:, context:) = { got: event["n"] + 1 }',
    "function.Some.handler": 'class Some; def self.handler(event:, context:) = { got: event["n"] + 1 }; end',
    "function.vendored": 'require "dep"; def vendored(event:, context:) = { got: Dep::ONE + event["n"] }',
}

RUBY_GEM = (
    'Gem::Specification.new { |s| s.name = "dep"; s.version = "1.0.0"; s.summary = s.authors = "x"; s.files = [] }'
)


class TestRuby:
    @pytest.mark.parametrize("handler", RUBY_HANDLERS)
    def test_every_shape_of_handler(self, system: System, ruby: str, handler: str) -> None:
        gems = f"vendor/bundle/ruby/{ruby.removeprefix('ruby')}.0"
        files = {
            "function.rb": RUBY_HANDLERS[handler],
            f"{gems}/specifications/dep-1.0.0.gemspec": RUBY_GEM,
            f"{gems}/gems/dep-1.0.0/lib/dep.rb": "module Dep; ONE = 1; end",
        }
        name = system.create(package(files), Runtime=ruby, Handler=handler)
        answer = system.invoke(name, event={"n": 41})
        assert answer.json() == {"got": 42}, answer.payload
        assert "INIT_START Runtime Version: ruby:" in log_of(system, name, "INIT_START")

    def test_an_error_has_its_type(self, system: System, ruby: str) -> None:
        code = 'def handler(event:, context:) = raise ArgumentError, "no such thing"'
        name = system.create(package({"function.rb": code}), Runtime=ruby, Handler="function.handler")
        answer = system.invoke(name)
        assert answer.function_error == "Unhandled"
        assert answer.json() == {"errorType": "Function<ArgumentError>", "errorMessage": "no such thing"}

    def test_an_init_error_fails_the_version(self, system: System, ruby: str) -> None:
        name = system.create(package({"function.rb": 'raise "no start"'}), Runtime=ruby, Handler="function.handler")
        with pytest.raises(WaiterError):
            publish(system.client, name, snap_start=True)

    def test_cold_starts_are_restores(self, cold_system: System, ruby: str) -> None:
        code, event = example("ruby-hello", ruby), event_of("ruby-hello")
        name, version = cold_system.create_snapshotted(code, Runtime=ruby, Handler="function.handler")
        answers = restored_one_by_one(cold_system, name, version, event)
        assert {answer["invocations"] for answer in answers} == {1}
        assert len({answer["initId"] for answer in answers}) == 1
        assert_all_differ(answers, ["requestId", "random"])

    def test_threads_pipes_files_and_children_come_back(self, cold_system: System, ruby: str) -> None:
        code = package({"function.rb": RUBY_STATE})
        name, version = cold_system.create_snapshotted(code, Runtime=ruby, Handler="function.handler")
        for answer in restored_one_by_one(cold_system, name, version, {}):
            passed = answer.pop("passed")
            assert 0 <= passed < 60, "monotonic time goes on from the snapshot"
            expected = {"sum": 9900, "pipe": "in the pipe", "line": 1, "child": "through a child", "umlaut": 2}
            assert answer == {**expected, "slept": 0}

    def test_two_clones_share_no_randomness(self, cold_system: System, ruby: str) -> None:
        code = package({"function.rb": RUBY_RANDOM})
        name, version = cold_system.create_snapshotted(code, Runtime=ruby, Handler="function.handler")
        answers = clones(cold_system, name, version)
        assert len({answer.pop("INIT") for answer in answers}) == 1
        assert len({answer.pop("OWN") for answer in answers}) == 1, "docs/uniqueness.md says that it repeats"
        assert_all_differ(answers, list(answers[0]))
