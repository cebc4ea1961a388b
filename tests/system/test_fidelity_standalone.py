"""The table of fidelity: item × {once, two clones, five generations}, through the tool of its own.

Each item is a program of crates/engine/tests/guests that sets one kind of state up and checks itself. Here it is
saved with `rekindle checkpoint` and comes back with `rekindle restore`: once, as two clones at one time, and five times
in a row, each time saved again. State that may be refused (`guest --list-refusable`, and REFUSED with its reasons) is
either refused by name, and the program then goes on as if nothing had happened, or comes back right.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import missing
from harness import paths
from harness.standalone import Program, Tool

SOURCES = paths.ROOT / "crates" / "engine" / "tests" / "guests"
GUEST = paths.CACHE / "tests" / "guest"
BUILD = ["cc", "-std=gnu11", "-O1", "-pthread"]
GENERATIONS = 5

# Items that may be refused here beside those that any engine may refuse, and why.
REFUSED: dict[str, str] = {
    "tree-orphan": "a process that has left the tree holds the other end of a pipe",
    "inotifies": "a watched file is looked for by name in a sandbox's own tree only",
    "blocked-files": "the same",
}
# Files on disk stay where they are, and so do those of /dev/shm, which a guest removes at its end: clones of it would
# remove them for each other.
SHARED = {"shared-tmpfs"}
# Items whose ports the host keeps for a while after a saved program was ended: restored into a network of their own.
OWN_NETWORK = {"tcp-connected", "tcp-half-closed", "tree-loopback", "tree-prefork"}
# Items that know their parent. That of a restored program is the first process of its namespace, so they are started
# that way.
HOUSED = {"tree"}
HOUSE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", 'setsid -w "$0" "$1"; exit $?']


def build() -> bool:
    """Builds the guest where it is older than its sources."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    if shutil.which("cc") is None or not sources:
        return False
    if not GUEST.exists() or any(source.stat().st_mtime > GUEST.stat().st_mtime for source in sources):
        GUEST.parent.mkdir(parents=True, exist_ok=True)
        programs = [str(source) for source in sources if source.suffix == ".c"]
        if subprocess.run([*BUILD, "-o", str(GUEST), *programs]).returncode != 0:
            return False
    return True


def items(which: str = "--list") -> list[str]:
    if not build():
        return []
    return subprocess.run([GUEST, which], capture_output=True, text=True, check=True).stdout.split()


ITEMS = [item for item in items() if item not in SHARED]
REFUSABLE = {*items("--list-refusable"), *REFUSED}


@pytest.fixture(scope="session")
def tool(binary: Path) -> Tool:
    if os.geteuid() != 0:
        missing("a checkpoint needs root")
    if not ITEMS:
        missing("the guests need a C compiler")
    return Tool(binary)


@pytest.fixture(scope="session")
def outside() -> Iterator[str]:
    """A listener that stands for the world outside of the tree."""
    listener = socket.create_server(("127.0.0.1", 0))
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


def ready(tool: Tool, item: str, outside: str) -> Program:
    # A session and a group that are led from outside of the tree have no number in the namespace of a clone.
    house = HOUSE if item in HOUSED else []
    environment = {**os.environ, "GUEST_PEER": outside}
    guest = tool.start(*house, GUEST, item, env=environment, start_new_session=True)
    said = guest.talk.hear()
    if said.startswith("skip: "):
        guest.end()
        missing(f"{item}: {said[6:]}")
    assert said == "ready"
    while Path(os.readlink(f"/proc/{guest.pid}/exe")) != GUEST:
        children = Path(f"/proc/{guest.pid}/task/{guest.pid}/children").read_text().split()
        guest.pid = int(children[0])
    return guest


def save(tool: Tool, item: str, program: Program, folder: Path) -> None:
    """Checkpoints. One that was refused as it may be ends the test, loudly; the program must not have noticed."""
    done = tool.run("checkpoint", "--pid", program.pid, "--to", folder, check=False)
    if done.returncode == 0:
        return
    assert item in REFUSABLE and "cannot be saved" in done.stderr, done.stderr
    assert not folder.exists()
    assert program.talk.ask("check") == "ok", "a refused checkpoint must not be noticed"
    program.talk.say("end")
    program.wait()
    pytest.skip(f"REFUSED, as it may be: {item}: {done.stderr.strip()}")


def checked(program: Program) -> None:
    assert program.talk.ask("restored") == "ok"
    assert program.talk.ask("check") == "ok"
    assert program.talk.ask("check") == "ok"


@pytest.mark.parametrize("item", ITEMS)
def test_once(tool: Tool, item: str, outside: str, tmp_path: Path) -> None:
    guest = ready(tool, item, outside)
    try:
        save(tool, item, guest, tmp_path / "saved")
        assert guest.wait() in (-9, 137), "a saved program is ended"
        network = "none" if item in OWN_NETWORK else "host"
        clone = tool.restore(tmp_path / "saved", "--network", network)
        try:
            checked(clone)
            clone.talk.say("end")
            assert clone.wait() == 0
        finally:
            clone.end()
    finally:
        guest.end()


@pytest.mark.parametrize("item", ITEMS)
def test_two_clones(tool: Tool, item: str, outside: str, tmp_path: Path) -> None:
    guest = ready(tool, item, outside)
    try:
        save(tool, item, guest, tmp_path / "saved")
        clones = tool.restore_many(
            tmp_path / "saved", 2, tmp_path / "streams", "--network", "none", "--private", "/tmp"
        )
        try:
            for talk in clones.talks:
                assert talk.ask("restored") == "ok"
            for _ in range(2):
                for talk in clones.talks:
                    talk.say("check")
                assert [talk.hear() for talk in clones.talks] == ["ok", "ok"]
            unique = [talk.ask("unique") for talk in clones.talks]
            assert unique[0] != unique[1] or unique[0] == "-"
            for talk in clones.talks:
                talk.say("end")
        finally:
            clones.end()
        # What the clones have removed was their own view of it: a last one, without, tidies up.
        last = tool.restore(tmp_path / "saved", "--network", "none")
        last.talk.say("end")
        last.wait()
        last.end()
    finally:
        guest.end()


@pytest.mark.parametrize("item", ITEMS)
def test_five_generations(tool: Tool, item: str, outside: str, tmp_path: Path) -> None:
    program = ready(tool, item, outside)
    try:
        for generation in range(GENERATIONS):
            save(tool, item, program, tmp_path / f"saved-{generation}")
            program.end()
            program = tool.restore(tmp_path / f"saved-{generation}", "--network", "none")
            checked(program)
        program.talk.say("end")
        assert program.wait() == 0
    finally:
        program.end()
