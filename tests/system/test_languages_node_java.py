"""Node.js and Java with the real AWS clients: handlers, settings, SnapStart, hooks, and what must differ in two clones.

A runtime is installed once, into the cache that the other tests use. A test whose interpreter or tools this machine
lacks says so. REKINDLE_TEST_NODE and REKINDLE_TEST_JAVA name another runtime than the first one found. Deliberately
absent: the API itself and the engine's own items, which have tests of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Runtime, System, missing, zip_of
from harness import paths
from harness.figures import duration_ms

PAUSE_S = 0.6
"""Longer than the idle time of `cold_system`: the next invocation is a cold start."""

CLONES = 3


def install(binary: Path, home: Path, candidates: list[str]) -> str:
    """Installs the first runtime whose interpreter this machine has. Whatever else keeps an install from working is a
    failure; tools that it needs and that are not here are not."""
    reasons = []
    for identifier in candidates:
        command = [str(binary), "runtime", "install", identifier, "--data-dir", str(home)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return identifier
        reasons.append(done.stderr.strip())
        if "was found" not in done.stderr and "missing; remedy" not in done.stderr:
            pytest.fail(f"{identifier} cannot be installed: {done.stderr}")
    missing("; ".join(reasons))


@pytest.fixture(scope="session")
def node(binary: Path, runtime: Runtime) -> str:
    wanted = os.environ.get("REKINDLE_TEST_NODE")
    return install(binary, runtime.home, [wanted] if wanted else ["nodejs20.x", "nodejs22.x", "nodejs24.x"])


@pytest.fixture(scope="session")
def java(binary: Path, runtime: Runtime) -> str:
    wanted = os.environ.get("REKINDLE_TEST_JAVA")
    return install(binary, runtime.home, [wanted] if wanted else ["java17", "java21", "java25"])


@pytest.fixture(scope="session")
def compile_java(java: str, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory):
    """Returns a function that makes a deployment package of one Java source file."""
    description = json.loads((runtime.home / "runtimes" / java / "runtime.json").read_text())
    compiler = Path(description["interpreter"]).with_name("javac")
    if not compiler.exists():
        missing(f"{compiler} (a JDK) to compile a Java function with")
    client = Path(next(bind["source"] for bind in description["binds"] if bind["target"] == "/var/runtime"))

    def build(source: str) -> bytes:
        work = tmp_path_factory.mktemp("java")
        (work / "Fun.java").write_text(source)
        jars = ":".join(map(str, client.glob("lib/*.jar")))
        command = [compiler, "-proc:none", "-d", work / "out", "-cp", jars, work / "Fun.java"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        files = [path for path in (work / "out").rglob("*") if path.is_file()]
        return zip_of({str(path.relative_to(work / "out")): path.read_bytes() for path in files})

    return build


def example(name: str, runtime_id: str) -> bytes:
    """An example's deployment package, as `examples/build` makes it."""
    if name.startswith("java") and not shutil.which("mvn"):
        missing(f"Maven to build {name}")
    command = [sys.executable, str(paths.EXAMPLES / "build"), name, "--runtime", runtime_id]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Path(done.stdout.split()[-1]).read_bytes()


def event_of(name: str) -> dict:
    return json.loads((paths.EXAMPLES / name / "event.json").read_text())


def clones(system: System, name: str, version: str) -> list[dict]:
    """What that many environments of the version answer, each a restored one of its own."""
    time.sleep(PAUSE_S)
    with ThreadPoolExecutor(CLONES) as pool:
        answers = list(pool.map(lambda _: system.invoke(name, version, {"sleep_ms": 400}), range(CLONES)))
    for answer in answers:
        assert answer.function_error is None, answer.payload
        assert "Restore Duration" in answer.log, answer.log
    return [answer.json() for answer in answers]


def assert_all_differ(answers: list[dict], fields: list[str]) -> None:
    for field in fields:
        values = [json.dumps(answer[field]) for answer in answers]
        assert len(set(values)) == len(values), f"{field} repeats: {values}"


def assert_restored(system: System, name: str, version: str, event: dict) -> list[dict]:
    """Invokes cold starts one by one; each must be a restore."""
    answers = []
    for _ in range(3):
        time.sleep(PAUSE_S)
        answer = system.invoke(name, version, event)
        assert answer.function_error is None, answer.payload
        assert "Restore Duration" in answer.log and "Init Duration" not in answer.log, answer.log
        answers.append(answer.json())
    return answers


NODE_HANDLERS = {
    "esm": ("index.mjs", "export const handler = async (event) => ({ got: event.n + 1 });"),
    "commonjs": ("index.js", "exports.handler = async (event) => ({ got: event.n + 1 });"),
    "callback": ("index.js", "exports.handler = (event, context, done) => done(null, { got: event.n + 1 });"),
    "top-level await": (
        "index.mjs",
        "const one = await new Promise((done) => setTimeout(() => done(1), 20));\n"
        "export const handler = async (event) => ({ got: event.n + one });",
    ),
}

NODE_SETTINGS = """
const v8 = require("node:v8");
exports.handler = async () => ({
    heap_mib: v8.getHeapStatistics().heap_size_limit / 1048576, path: process.env.NODE_PATH,
    root: process.env.LAMBDA_TASK_ROOT, cwd: process.cwd(), home: require("dep"),
    random: Function.prototype.toString.call(Math.random), kind: process.env.AWS_LAMBDA_INITIALIZATION_TYPE });
"""

NODE_RANDOM = """
import crypto, { randomUUID, randomInt } from "node:crypto";
import { mkdtempSync } from "node:fs";
const INIT = randomUUID();
const take = () => ({
    mathRandom: Math.random(), uuid: randomUUID(), uuidOfObject: crypto.randomUUID({ disableEntropyCache: false }),
    webUuid: globalThis.crypto.randomUUID(), int: randomInt(2 ** 47), bytes: crypto.randomBytes(12).toString("hex"),
    values: Array.from(globalThis.crypto.getRandomValues(new Uint32Array(3))),
    key: crypto.generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" }).d,
    temporary: mkdtempSync("/tmp/x-") });
const atInit = take();
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
export const handler = async (event) => {
    await pause(event.sleep_ms ?? 0);
    const asynchronousInt = await new Promise((done) => randomInt(2 ** 47, (error, value) => done(value)));
    return { INIT, asynchronousInt, ...take() };
};
"""


class TestNode:
    @pytest.mark.parametrize("shape", NODE_HANDLERS)
    def test_every_shape_of_handler(self, system: System, node: str, shape: str) -> None:
        file, code = NODE_HANDLERS[shape]
        name = system.create(zip_of({file: code}), Runtime=node, Handler="index.handler")
        answer = system.invoke(name, event={"n": 41})
        assert answer.json() == {"got": 42}, answer.payload
        assert "INIT_START Runtime Version: nodejs:" in system.logs(name)
        assert "Executing" not in system.logs(name), "the client's own program announces every init"

    def test_an_error_has_its_type_and_trace(self, system: System, node: str) -> None:
        code = "exports.handler = async () => { throw new TypeError('no such thing'); };"
        name = system.create(zip_of({"index.js": code}), Runtime=node, Handler="index.handler")
        answer = system.invoke(name)
        assert answer.function_error == "Unhandled"
        error = answer.json()
        assert (error["errorType"], error["errorMessage"]) == ("TypeError", "no such thing")
        assert error["trace"][0] == "TypeError: no such thing"

    def test_settings_follow_the_function(self, system: System, node: str) -> None:
        files = {"index.js": NODE_SETTINGS, "node_modules/dep/index.js": "module.exports = __dirname;"}
        name = system.create(zip_of(files), Runtime=node, Handler="index.handler", MemorySize=512)
        settings = system.invoke(name).json()
        assert 512 * 0.85 < settings["heap_mib"] < 512 * 1.1, settings
        assert settings["cwd"] == settings["root"] == "/var/task"
        assert settings["home"] == "/var/task/node_modules/dep"
        assert settings["path"].startswith(f"/opt/nodejs/node{node.removeprefix('nodejs').removesuffix('.x')}/")
        assert settings["kind"] == "on-demand" and "[native code]" in settings["random"]

    def test_cold_starts_are_restores(self, cold_system: System, node: str) -> None:
        package = example("node-hello", node)
        name, version = cold_system.create_snapshotted(package, Runtime=node, Handler="index.handler")
        answers = assert_restored(cold_system, name, version, event_of("node-hello"))
        assert {answer["invocations"] for answer in answers} == {1}
        assert len({answer["initId"] for answer in answers}) == 1
        assert_all_differ(answers, ["requestId"])

    def test_two_clones_share_no_randomness(self, cold_system: System, node: str) -> None:
        package = zip_of({"index.mjs": NODE_RANDOM})
        name, version = cold_system.create_snapshotted(package, Runtime=node, Handler="index.handler", MemorySize=512)
        answers = clones(cold_system, name, version)
        assert len({answer.pop("INIT") for answer in answers}) == 1
        assert_all_differ(answers, list(answers[0]))


JAVA_HANDLERS = {
    "Fun$Typed": "public static class Typed implements RequestHandler<Map<String, Integer>, Map<String, Integer>> {"
    " public Map<String, Integer> handleRequest(Map<String, Integer> event, Context context)"
    ' { return Map.of("got", event.get("n") + 1); } }',
    "Fun$Bytes": "public static class Bytes implements RequestStreamHandler {"
    " public void handleRequest(InputStream in, OutputStream out, Context context) throws IOException"
    ' { in.readAllBytes(); out.write("{\\"got\\": 42}".getBytes()); } }',
    "Fun$Plain::answer": "public static class Plain { public static class In { private int n;"
    " public void setN(int n) { this.n = n; } }"
    ' public Map<String, Integer> answer(In event) { return Map.of("got", event.n + 1); } }',
}

JAVA_IMPORTS = """
import com.amazonaws.services.lambda.runtime.*;
import java.io.*;
import java.security.*;
import java.util.*;
import java.util.concurrent.*;
"""

JAVA_SETTINGS = (
    JAVA_IMPORTS
    + """
public class Fun implements RequestHandler<Map<String, String>, Map<String, Object>> {
    public Map<String, Object> handleRequest(Map<String, String> event, Context context) {
        if (event.containsKey("fail")) throw new IllegalStateException("no such thing");
        Map<String, Object> answer = new TreeMap<>();
        answer.put("heap_mib", Runtime.getRuntime().maxMemory() / 1048576);
        answer.put("home", System.getProperty("java.home"));
        answer.put("collectors", java.lang.management.ManagementFactory.getGarbageCollectorMXBeans().get(0).getName());
        answer.put("memory", context.getMemoryLimitInMB());
        answer.put("temporary", Optional.ofNullable(new File("/tmp").list()).map(List::of).orElse(List.of()));
        return answer;
    }
}
"""
)

JAVA_RANDOM = (
    JAVA_IMPORTS
    + """
public class Fun implements RequestHandler<Map<String, Integer>, Map<String, Object>> {
    private final String init = UUID.randomUUID().toString();
    private final ExecutorService pool = Executors.newSingleThreadExecutor();
    private final SecureRandom drbg, sha1, standard = new SecureRandom();
    public Fun() throws Exception {
        drbg = SecureRandom.getInstance("DRBG");
        sha1 = SecureRandom.getInstance("SHA1PRNG");
        take();
    }
    private Map<String, Object> take() throws Exception {
        Map<String, Object> answer = new TreeMap<>();
        answer.put("mathRandom", Math.random());
        answer.put("threadLocal", ThreadLocalRandom.current().nextLong());
        answer.put("threadLocalOfPool", pool.submit(() -> ThreadLocalRandom.current().nextLong()).get());
        answer.put("threadLocalOfNewThread", CompletableFuture.supplyAsync(
            () -> ThreadLocalRandom.current().nextLong(), task -> new Thread(task).start()).get());
        answer.put("splittable", new SplittableRandom().nextLong());
        answer.put("generator", java.util.random.RandomGenerator.of("L64X128MixRandom").nextLong());
        answer.put("random", new Random().nextLong());
        answer.put("secure", standard.nextLong());
        answer.put("drbg", drbg.nextLong());
        answer.put("sha1prng", sha1.nextLong());
        answer.put("uuid", UUID.randomUUID().toString());
        KeyPairGenerator keys = KeyPairGenerator.getInstance("EC");
        answer.put("key", Base64.getEncoder().encodeToString(keys.generateKeyPair().getPrivate().getEncoded()));
        return answer;
    }
    public Map<String, Object> handleRequest(Map<String, Integer> event, Context context) {
        try {
            Thread.sleep(event.getOrDefault("sleep_ms", 0));
            Map<String, Object> answer = take();
            answer.put("init", init);
            return answer;
        } catch (Exception failure) {
            throw new IllegalStateException(failure);
        }
    }
}
"""
)


class TestJava:
    @pytest.mark.parametrize("handler", JAVA_HANDLERS)
    def test_every_shape_of_handler(self, system: System, java: str, compile_java, handler: str) -> None:
        package = compile_java(JAVA_IMPORTS + "public class Fun { " + JAVA_HANDLERS[handler] + " }")
        name = system.create(package, Runtime=java, Handler=handler, MemorySize=512)
        answer = system.invoke(name, event={"n": 41})
        assert answer.json() == {"got": 42}, answer.payload
        assert f"INIT_START Runtime Version: java:{java.removeprefix('java')}." in system.logs(name)

    def test_settings_follow_the_function(self, system: System, java: str, compile_java) -> None:
        package = compile_java(JAVA_SETTINGS)
        name = system.create(package, Runtime=java, Handler="Fun", MemorySize=512)
        settings = system.invoke(name).json()
        assert 512 * 0.75 < settings["heap_mib"] <= 512 * 0.86, settings
        assert settings["collectors"] == "Copy", "the serial collector"
        assert settings["memory"] == 512
        assert settings["temporary"] == [], "the runtime leaves nothing in /tmp"
        error = system.invoke(name, event={"fail": "yes"})
        assert error.json()["errorType"] == "java.lang.IllegalStateException"

    def test_the_functions_own_options_win(self, system: System, java: str, compile_java) -> None:
        package = compile_java(JAVA_SETTINGS)
        options = {"JAVA_TOOL_OPTIONS": "-Xmx64m -XX:-UseSerialGC -XX:+UseParallelGC"}
        name = system.create(package, Runtime=java, Handler="Fun", MemorySize=512, Environment={"Variables": options})
        settings = system.invoke(name).json()
        assert settings["heap_mib"] <= 64 and settings["collectors"].startswith("PS"), settings

    def test_cold_starts_are_restores_and_hooks_run(self, cold_system: System, java: str) -> None:
        package = example("java-hello", java)
        name, version = cold_system.create_snapshotted(package, Runtime=java, Handler="example.Hello", MemorySize=512)
        assert "before the snapshot" in cold_system.logs(name)
        answers = assert_restored(cold_system, name, version, event_of("java-hello"))
        assert {answer["invocations"] for answer in answers} == {1}
        assert len({answer["initId"] for answer in answers}) == 1
        assert all(abs(time.time() - answer["restoredAtMillis"] / 1000) < 60 for answer in answers)
        assert_all_differ(answers, ["requestId", "restoredAtMillis"])

    def test_hooks_do_not_run_without_a_snapshot(self, system: System, java: str) -> None:
        name = system.create(example("java-hello", java), Runtime=java, Handler="example.Hello", MemorySize=512)
        assert system.invoke(name, event=event_of("java-hello")).json()["restoredAtMillis"] == 0
        assert "before the snapshot" not in system.logs(name)

    def test_two_clones_share_no_randomness(self, cold_system: System, java: str, compile_java) -> None:
        package = compile_java(JAVA_RANDOM)
        name, version = cold_system.create_snapshotted(package, Runtime=java, Handler="Fun", MemorySize=1024)
        answers = clones(cold_system, name, version)
        assert len({answer.pop("init") for answer in answers}) == 1
        assert_all_differ(answers, list(answers[0]))

    def test_a_heavy_init_is_restored_in_a_fraction(self, cold_system: System, java: str) -> None:
        package, event = example("java-heavy", java), event_of("java-heavy")
        settings = {"Runtime": java, "Handler": "example.Heavy", "MemorySize": 1024, "Timeout": 30}
        name = cold_system.create(package, **settings)
        cold = cold_system.invoke(name, event=event)
        assert cold.json()["total"] == 25.0 and not cold.json()["restored"]
        version = cold_system.publish(name)
        answers = assert_restored(cold_system, name, version, event)
        assert all(answer["restored"] and answer["total"] == 25.0 for answer in answers)
        time.sleep(PAUSE_S)
        again = cold_system.invoke(name, version, event)
        restore_ms = duration_ms(again.log, "Restore Duration")
        assert restore_ms * 10 < duration_ms(cold.log, "Init Duration"), again.log
