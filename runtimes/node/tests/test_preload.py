"""Tests of `rekindle-preload.cjs` that need no server: what it replaces, when it looks for a restore, what it leaves.

Each test runs the real file in a Node.js of its own. A script loaded before it stands between it and the file with the
number of the environment, so that a "restore" is one assignment. That clones differ is what the system tests show.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

PRELOAD = Path(__file__).resolve().parent.parent / "rekindle-preload.cjs"

GENERATION = """
const fs = require("node:fs"), crypto = require("node:crypto");
globalThis.generation = { number: "aaaa", reads: 0, seeds: 0 };
globalThis.originals = { random: Math.random, uuid: crypto.randomUUID, int: crypto.randomInt };
const { readFileSync } = fs, { randomFillSync } = crypto;
fs.readFileSync = (path, ...rest) => {
    if (path !== "/dev/sysgenid") return readFileSync(path, ...rest);
    generation.reads += 1;
    return generation.number;
};
crypto.randomFillSync = (...all) => { generation.seeds += 1; return randomFillSync(...all); };
"""


@pytest.fixture
def run(tmp_path: Path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("DID NOT RUN: no node on PATH")
    (tmp_path / "generation.cjs").write_text(GENERATION)

    def start(script: str, kind: str = "snap-start", name: str = "script.mjs") -> dict:
        (tmp_path / name).write_text(script)
        command = [node, "--require", str(tmp_path / "generation.cjs"), "--require", str(PRELOAD), str(tmp_path / name)]
        environment = {**os.environ, "AWS_LAMBDA_INITIALIZATION_TYPE": kind}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return start


ORIGINALS = """
import crypto, { randomInt, randomUUID } from "node:crypto";
console.log(JSON.stringify({ random: Math.random === originals.random, uuid: randomUUID === originals.uuid,
    int: randomInt === originals.int, property: crypto.randomInt === originals.int, reads: generation.reads }));
"""


def test_an_environment_that_is_not_snapshotted_is_left_alone(run) -> None:
    assert run(ORIGINALS, kind="on-demand") == {"random": True, "uuid": True, "int": True, "property": True, "reads": 0}


def test_modules_see_the_replacements_however_they_import_them(run) -> None:
    replaced = run(ORIGINALS)
    assert replaced == {"random": False, "uuid": False, "int": False, "property": False, "reads": 0}


def test_a_restore_is_noticed_once_in_the_next_turn(run) -> None:
    result = run("""
        const turn = () => new Promise((done) => setTimeout(done, 5));
        const seen = [];
        const draw = () => {
            for (let i = 0; i < 100; i++) Math.random();
            seen.push([generation.reads, generation.seeds]);
        };
        draw(); await turn(); draw();
        generation.number = "bbbb";
        await turn(); draw(); await turn(); draw();
        console.log(JSON.stringify(seen));
    """)
    # Reads count the turns, seeds the restores (and the first use).
    assert result == [[1, 1], [2, 1], [3, 2], [4, 2]]


def test_numbers_are_spread_evenly(run) -> None:
    result = run("""
        const buckets = new Array(16).fill(0);
        for (let i = 0; i < 160000; i++) buckets[Math.floor(Math.random() * 16)] += 1;
        const ints = new Array(7).fill(0);
        const { randomInt } = await import("node:crypto");
        for (let i = 0; i < 70000; i++) ints[randomInt(3, 10) - 3] += 1;
        console.log(JSON.stringify({ buckets, ints }));
    """)
    assert len(result["buckets"]) == 16 and all(9300 < count < 10700 for count in result["buckets"]), result
    assert len(result["ints"]) == 7 and all(9300 < count < 10700 for count in result["ints"]), result


def test_wrong_arguments_are_refused_in_nodes_own_words(run) -> None:
    script = """
        import crypto from "node:crypto";
        const calls = [() => crypto.randomInt("x"), () => crypto.randomInt(5, 3), () => crypto.randomInt(1, 2, 3),
            () => crypto.randomUUID(1), () => crypto.randomUUID({ disableEntropyCache: 1 }),
            () => globalThis.crypto.randomUUID.call({})];
        const outcome = (call) => { try { return call(); } catch (error) { return [error.code, error.message]; } };
        console.log(JSON.stringify(calls.map(outcome)));
    """
    ours, nodes = run(script), run(script, kind="on-demand")
    assert ours[:4] + ours[5:] == nodes[:4] + nodes[5:]
    assert isinstance(ours[4], str), "the option that is overruled is not looked at"


def test_callbacks_and_workers_are_served_too(run) -> None:
    result = run("""
        import { randomInt } from "node:crypto";
        import { Worker } from "node:worker_threads";
        const value = await new Promise((done) => randomInt(5, 8, (error, value) => done([error ?? null, value])));
        const code = "require('worker_threads').parentPort.postMessage(Math.random.toString())";
        const worker = new Worker(code, { eval: true });
        const inWorker = await new Promise((done) => worker.once("message", done));
        console.log(JSON.stringify({ value, inWorker }));
    """)
    assert result["value"][0] is None and result["value"][1] in (5, 6, 7)
    assert "generation" in result["inWorker"]
