"""Driving `rekindle checkpoint`, `restore` and `image` as a person in a shell would.

Absent on purpose: servers and functions; see harness.server for those.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

PATIENCE_S = 30


class Talk:
    """Lines to and from a process, over any two descriptors."""

    def __init__(self, to: BinaryIO, out_of: BinaryIO) -> None:
        self.to, self.out_of = to, out_of
        self.left = b""

    def say(self, line: str) -> None:
        self.to.write(line.encode() + b"\n")
        self.to.flush()

    def hear(self, patience_s: float = PATIENCE_S) -> str:
        """The next line; an empty one when the other side has closed."""
        deadline = time.monotonic() + patience_s
        while b"\n" not in self.left:
            ready, _, _ = select.select([self.out_of], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no line came within {patience_s} s; heard {self.left!r}")
            piece = os.read(self.out_of.fileno(), 65536)
            if not piece:
                return ""
            self.left += piece
        line, self.left = self.left.split(b"\n", 1)
        return line.decode(errors="replace")

    def ask(self, line: str, patience_s: float = PATIENCE_S) -> str:
        self.say(line)
        return self.hear(patience_s)

    def close(self) -> None:
        self.to.close()
        self.out_of.close()


@dataclass
class Program:
    """A program under test: started plainly, or by a restore in the foreground."""

    process: subprocess.Popen[bytes]
    talk: Talk
    pid: int = 0
    report: dict[str, Any] = field(default_factory=dict)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        return self.process.wait(patience_s)

    def end(self) -> None:
        """Ends it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.talk.close()
        if self.process.stderr:
            self.process.stderr.close()


@dataclass
class Clones:
    """Clones of a restore in the background, each with a talk of its own."""

    pids: list[int]
    talks: list[Talk]
    report: dict[str, Any]

    def end(self) -> None:
        for clone in self.report["clones"]:
            kill(clone["init_pid"])
        for talk in self.talks:
            talk.close()


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Tool:
    """The three commands."""

    def __init__(self, binary: Path) -> None:
        self.binary = str(binary)

    def run(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [self.binary, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}")
        return done

    def start(self, *command: object, **options: Any) -> Program:
        """Starts a program with pipes for standard input and output, and nothing else that is open."""
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=options.pop("stderr", subprocess.DEVNULL),
            **options,
        )
        assert process.stdin and process.stdout
        return Program(process, Talk(process.stdin, process.stdout), process.pid)

    def checkpoint(self, pid: int, to: Path, *more: str) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.run("checkpoint", "--pid", pid, "--to", to, "--json", *more).stdout)
        return report

    def restore(self, folder: Path, *more: object) -> Program:
        """Restores in the foreground. The report is the first line of standard error that is not about progress."""
        program = self.start(self.binary, "restore", folder, "--json", *more, stderr=subprocess.PIPE)
        assert program.process.stderr
        line = program.process.stderr.readline().decode()
        while line.startswith("restore: "):
            line = program.process.stderr.readline().decode()
        if not line.startswith("{"):
            program.end()
            raise AssertionError(f"restore {folder}: {line}")
        program.report = json.loads(line)
        program.pid = program.report["clones"][0]["pid"]
        return program

    def restore_many(self, folder: Path, count: int, streams: Path, *more: object) -> Clones:
        """Restores in the background; each clone talks over two FIFOs below `streams`."""
        streams.mkdir(parents=True, exist_ok=True)
        talks = []
        for number in range(1, count + 1):
            ends = [streams / f"{name}-{number}" for name in ("in", "out")]
            for end in ends:
                os.mkfifo(end)
            # Opened for both directions, so that neither open waits for the other side.
            to, out_of = (os.open(end, os.O_RDWR) for end in ends)
            talks.append(Talk(os.fdopen(to, "wb", 0), os.fdopen(out_of, "rb", 0)))
        named: Sequence[object] = ["--stdin", streams / "in-{}", "--stdout", streams / "out-{}"]
        try:
            done = self.run("restore", folder, "--detach", "--count", count, "--json", *named, *more)
        except AssertionError:
            for talk in talks:
                talk.close()
            raise
        report = json.loads(done.stdout)
        return Clones([clone["pid"] for clone in report["clones"]], talks, report)
