"""`rekindle checkpoint`, `restore` and `image`: programs that know nothing of Lambda, saved and brought back.

The programs are a few lines of Python each; they speak over standard input and output, over HTTP or over a terminal.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import missing
from harness.standalone import Program, Talk, Tool, kill

COUNTER = """
    import os, sys, threading, time
    counts = [0] * 4
    def count(index):
        while True:
            counts[index] += 1
            time.sleep(0.01)
    for index in range(4):
        threading.Thread(target=count, args=(index,), daemon=True).start()
    for line in sys.stdin:
        if line.strip() == "end":
            sys.exit(7)
        print(os.getpid(), len(threading.enumerate()), min(counts), time.monotonic(), flush=True)
"""

SERVER = """
    import http.server, os
    hits = 0
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            global hits
            hits += 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"{os.getpid()} {hits}".encode())
        def log_message(self, *words):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
"""

FAMILY = """
    import multiprocessing, sys
    def work(end):
        total = 0
        while True:
            total += end.recv()
            end.send(total)
    multiprocessing.set_start_method("fork")
    ends = []
    for _ in range(3):
        ours, theirs = multiprocessing.Pipe()
        multiprocessing.Process(target=work, args=(theirs,), daemon=True).start()
        ends.append(ours)
    for line in sys.stdin:
        for number, end in enumerate(ends):
            end.send(number + 1)
        print(*[end.recv() for end in ends], flush=True)
"""

DATABASE = """
    import sqlite3, sys
    base = sqlite3.connect(sys.argv[1])
    base.execute("create table if not exists notes (text)")
    base.commit()
    log = open(sys.argv[1] + ".log", "a")
    for line in sys.stdin:
        base.execute("insert into notes values (?)", (line.strip(),))
        base.commit()
        log.write(line)
        log.flush()
        print(base.execute("select count(*) from notes").fetchone()[0], flush=True)
"""

TERMINAL = """
    import signal, sys, time
    def stopped(number, frame):
        print("interrupted", flush=True)
        sys.exit(5)
    signal.signal(signal.SIGINT, stopped)
    print("started", flush=True)
    while True:
        print("heard", input(), flush=True)
"""

HEAP = """
    import sys
    heap = bytearray(int(sys.argv[1]) << 20)
    for at in range(0, len(heap), 4096):
        heap[at:at + 8] = at.to_bytes(8, "little")
    print("ready", flush=True)
    for line in sys.stdin:
        print(all(int.from_bytes(heap[at:at + 8], "little") == at for at in range(0, len(heap), 4096)), flush=True)
"""


@pytest.fixture(scope="session")
def tool(binary: Path) -> Tool:
    if os.geteuid() != 0:
        missing("a checkpoint needs root")
    return Tool(binary)


@pytest.fixture
def start(tool: Tool, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts Python programs; each is ended with the test."""
    programs: list[Program] = []

    def begin(source: str, *arguments: object, **options: object) -> Program:
        path = tmp_path / f"program-{len(programs)}.py"
        path.write_text(textwrap.dedent(source))
        programs.append(tool.start(sys.executable, path, *arguments, **options))
        return programs[-1]

    yield begin
    for program in programs:
        program.end()


def counted(talk: Talk) -> list[float]:
    return [float(word) for word in talk.ask("?").split()]


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_program_with_threads_comes_back_twice_at_one_time(
    tool: Tool, start: Callable[..., Program], tmp_path: Path
) -> None:
    program = start(COUNTER)
    pid, threads, _, _ = counted(program.talk)
    time.sleep(0.2)
    before = counted(program.talk)
    report = tool.checkpoint(program.pid, tmp_path / "saved")
    assert (report["processes"], report["threads"]) == (1, 5) and report["pause_ms"] > 0
    assert program.wait() == -signal.SIGKILL, "a saved program is ended"
    time.sleep(1)
    clones = [tool.restore(tmp_path / "saved") for _ in range(2)]
    try:
        for clone in clones:
            after = counted(clone.talk)
            assert after[:2] == [pid, threads], "the process keeps its ID and its threads"
            assert after[2] >= before[2]
            assert before[3] < after[3] < before[3] + 0.9, "its clock has not seen the time in between"
        time.sleep(0.2)
        assert all(counted(clone.talk)[2] > before[2] + 5 for clone in clones), "its threads go on"
        clones[0].talk.say("end")
        assert clones[0].wait() == 7, "the exit code is the program's"
        assert counted(clones[1].talk)[0] == pid
    finally:
        for clone in clones:
            clone.end()


def test_clones_of_one_template_have_memory_of_their_own(
    tool: Tool, start: Callable[..., Program], tmp_path: Path
) -> None:
    program = start(FAMILY)
    assert program.talk.ask("go") == "1 2 3"
    report = tool.checkpoint(program.pid, tmp_path / "saved")
    assert report["processes"] == 4
    clones = tool.restore_many(tmp_path / "saved", 3, tmp_path / "streams")
    try:
        assert [talk.ask("go") for talk in clones.talks] == ["2 4 6"] * 3
        assert clones.talks[0].ask("go") == "3 6 9"
        assert clones.talks[1].ask("go") == "3 6 9"
        groups = {os.getpgid(pid) for pid in clones.pids}
        assert len(groups) == 3, "a signal of one clone to its own group reaches no other"
        os.kill(clones.pids[0], signal.SIGTERM)
        end = time.monotonic() + 5
        while is_running(clones.report["clones"][0]["init_pid"]) and time.monotonic() < end:
            time.sleep(0.01)
        assert not is_running(clones.report["clones"][0]["init_pid"]), "nothing is left when the first process ends"
        assert clones.talks[2].ask("go") == "3 6 9"
    finally:
        clones.end()


def fetch(port: int, pid: int | None = None) -> str:
    """Asks a server on 127.0.0.1: of this network, or of that of a process."""
    code = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/', timeout=10).read().decode())"
    inside = ["nsenter", "--target", str(pid), "--net"] if pid else []
    return subprocess.run(
        [*inside, sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()


def test_an_http_server_answers_on_its_port_again(tool: Tool, start: Callable[..., Program], tmp_path: Path) -> None:
    program = start(SERVER)
    port = int(program.talk.hear())
    pid, _ = fetch(port).split()
    tool.checkpoint(program.pid, tmp_path / "saved")
    program.wait()
    with pytest.raises(subprocess.CalledProcessError):
        fetch(port)
    clone = tool.restore(tmp_path / "saved")
    try:
        assert fetch(port) == f"{pid} 2"
    finally:
        clone.end()


def test_two_servers_have_the_same_port_in_networks_of_their_own(
    tool: Tool, start: Callable[..., Program], tmp_path: Path
) -> None:
    program = start(SERVER)
    port = int(program.talk.hear())
    tool.checkpoint(program.pid, tmp_path / "saved")
    refused = tool.run("restore", tmp_path / "saved", "--detach", "--count", 2, check=False)
    assert refused.returncode != 0 and "--network none" in refused.stderr
    clones = tool.restore_many(tmp_path / "saved", 2, tmp_path / "streams", "--network", "none")
    try:
        answers = [[fetch(port, pid) for _ in range(2)] for pid in clones.pids]
        assert answers[0] == answers[1] == [f"{program.pid} 1", f"{program.pid} 2"]
    finally:
        clones.end()


def test_files_stay_and_each_clone_can_have_its_own_view(
    tool: Tool, start: Callable[..., Program], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    program = start(DATABASE, home / "base")
    assert program.talk.ask("one") == "1"
    tool.checkpoint(program.pid, tmp_path / "saved")
    clones = tool.restore_many(tmp_path / "saved", 2, tmp_path / "streams", "--private", home)
    try:
        assert [talk.ask("two") for talk in clones.talks] == ["2", "2"]
        assert clones.talks[0].ask("three") == "3"
    finally:
        clones.end()
    assert (home / "base.log").read_text() == "one\n"
    clone = tool.restore(tmp_path / "saved")
    try:
        assert clone.talk.ask("two") == "2"
    finally:
        clone.end()
    assert (home / "base.log").read_text() == "one\ntwo\n"
    with sqlite3.connect(home / "base") as base:
        assert base.execute("select text from notes").fetchall() == [("one",), ("two",)]


def test_a_program_can_be_left_running(tool: Tool, start: Callable[..., Program], tmp_path: Path) -> None:
    program = start(COUNTER)
    before = counted(program.talk)
    report = tool.checkpoint(program.pid, tmp_path / "saved", "--leave-running")
    assert report["left_running"]
    assert counted(program.talk)[0] == before[0]
    clone = tool.restore(tmp_path / "saved")
    try:
        assert counted(clone.talk)[0] == before[0] == counted(program.talk)[0]
    finally:
        clone.end()


def test_signals_reach_the_program_and_its_end_is_told(
    tool: Tool, start: Callable[..., Program], tmp_path: Path
) -> None:
    program = start(COUNTER)
    counted(program.talk)
    tool.checkpoint(program.pid, tmp_path / "saved")
    clone = tool.restore(tmp_path / "saved")
    clone.process.send_signal(signal.SIGTERM)
    assert clone.wait() == 128 + signal.SIGTERM
    clone.end()
    clone = tool.restore(tmp_path / "saved")
    init = clone.report["clones"][0]["init_pid"]
    clone.process.kill()
    end = time.monotonic() + 5
    while (is_running(init) or is_running(clone.pid)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_running(init) and not is_running(clone.pid), "nothing outlives a restore in the foreground"
    clone.end()


def in_terminal(command: list[str]) -> tuple[int, Talk]:
    """Runs a command as a shell in a terminal of its own would; returns its process ID and the talk."""
    pid, master = pty.fork()
    if pid == 0:
        os.closerange(3, 1024)
        os.execv(command[0], command)
    return pid, Talk(os.fdopen(master, "wb", 0, closefd=False), os.fdopen(master, "rb", 0))


def hear_until(talk: Talk, *wanted: str) -> None:
    """Reads lines until one ends as wanted; a terminal echoes, and a shell puts its prompt before what is printed."""
    heard = []
    for _ in range(20):
        heard.append(talk.hear().strip())
        if heard[-1].endswith(wanted):
            return
    raise AssertionError(f"{wanted} did not come: {heard}")


@pytest.mark.parametrize("leads_group", [False, True])
def test_ctrl_c_in_a_terminal_reaches_the_program(
    tool: Tool, start: Callable[..., Program], tmp_path: Path, leads_group: bool
) -> None:
    # A shell gives each job a process group of its own, which is the foreground one of the terminal.
    path = tmp_path / "terminal.py"
    path.write_text(textwrap.dedent(TERMINAL))
    if leads_group:
        path.write_text("import os; os.setpgid(0, 0)\n" + path.read_text())
        program = start(path.read_text())
        pid, talk = program.pid, program.talk
    else:
        pid, talk = in_terminal([sys.executable, str(path)])
    hear_until(talk, "started")
    talk.say("one")
    hear_until(talk, "heard one")
    tool.checkpoint(pid, tmp_path / "saved")
    if not leads_group:
        os.waitpid(pid, 0)
        talk.close()
    pid, talk = in_terminal([tool.binary, "restore", str(tmp_path / "saved")])
    try:
        talk.say("two")
        hear_until(talk, "heard two")
        # A signal between two reads would not interrupt the next one.
        time.sleep(0.5)
        talk.to.write(b"\x03")
        hear_until(talk, "^Cinterrupted")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    finally:
        kill(pid)
        talk.close()


def test_a_shell_can_stop_the_program_and_let_it_go_on(
    tool: Tool, start: Callable[..., Program], tmp_path: Path
) -> None:
    program = start("import os; os.setpgid(0, 0)\n" + textwrap.dedent(TERMINAL))
    assert program.talk.hear() == "started"
    tool.checkpoint(program.pid, tmp_path / "saved")
    if not Path("/bin/bash").exists():
        missing("this machine has no bash, whose job control is tried")
    pid, talk = in_terminal(["/bin/bash", "--norc", "--noediting", "-i"])
    try:
        talk.say("PS1=; stty -echo; echo set up")
        hear_until(talk, "# set up", "$ set up")
        talk.say(f"{tool.binary} restore {tmp_path}/saved; echo now $?")
        time.sleep(1)
        talk.say("one")
        hear_until(talk, "heard one")
        time.sleep(0.5)
        talk.to.write(b"\x1a")
        hear_until(talk, f"now {128 + signal.SIGTSTP}", f"now {128 + signal.SIGSTOP}")
        talk.say("fg; echo then $?")
        time.sleep(0.5)
        talk.say("two")
        hear_until(talk, "heard two")
        time.sleep(0.5)
        talk.to.write(b"\x03")
        hear_until(talk, "then 5")
    finally:
        kill(pid)
        talk.close()


def test_a_killed_checkpoint_leaves_the_program_running_and_no_folder(
    tool: Tool, start: Callable[..., Program], tmp_path: Path
) -> None:
    program = start(HEAP, 300)
    assert program.talk.hear() == "ready"
    folder = tmp_path / "folders" / "saved"
    folder.parent.mkdir()
    struck = 0
    for delay_ms in (2, 10, 30, 60, 120):
        command = [tool.binary, "checkpoint", "--pid", str(program.pid), "--to", str(folder), "--leave-running"]
        checkpoint = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay_ms / 1000)
        checkpoint.kill()
        checkpoint.wait()
        assert program.talk.ask("?") == "True", "the program goes on"
        end = time.monotonic() + 10
        while any(name.name.endswith(".partial") for name in folder.parent.iterdir()) and time.monotonic() < end:
            time.sleep(0.01)
        left = [entry.name for entry in folder.parent.iterdir()]
        assert left in ([], ["saved"]), f"a half folder: {left}"
        if left:
            subprocess.run(["rm", "-r", folder], check=True)
        else:
            struck += 1
    assert struck > 0, "no checkpoint was interrupted: the program is too small"
    tool.checkpoint(program.pid, folder)
    clone = tool.restore(folder)
    try:
        assert clone.talk.ask("?") == "True"
    finally:
        clone.end()


def test_a_full_disk_leaves_the_program_running(tool: Tool, start: Callable[..., Program], tmp_path: Path) -> None:
    program = start(HEAP, 32)
    assert program.talk.hear() == "ready"
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small]).returncode != 0:
        missing("this machine mounts nothing")
    try:
        done = tool.run("checkpoint", "--pid", program.pid, "--to", small / "saved", check=False)
        assert done.returncode != 0 and "No space left" in done.stderr
        assert list(small.iterdir()) == []
        assert program.talk.ask("?") == "True"
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_damaged_folder_is_refused(tool: Tool, start: Callable[..., Program], tmp_path: Path) -> None:
    program = start(COUNTER)
    counted(program.talk)
    folder = tmp_path / "saved"
    tool.checkpoint(program.pid, folder)
    for name in ("image", "pages", "sums"):
        file = folder / name
        whole = file.read_bytes()
        middle = len(whole) // 2
        for broken in (
            whole[:middle],
            whole + b"\0" * 4096,
            whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            b"",
        ):
            file.write_bytes(broken)
            done = tool.run("restore", folder, "--detach", check=False)
            assert done.returncode == 1 and "damaged" in done.stderr, (name, len(broken), done.stderr)
        file.write_bytes(whole)
    image = (folder / "image").read_bytes()
    assert image[:2] == b"\x08\x02", "the format is the first field"
    for path in (tmp_path / "nothing", tmp_path):
        done = tool.run("restore", path, check=False)
        assert done.returncode == 1 and "rekindle checkpoint" in done.stderr
    clone = tool.restore(folder)
    assert counted(clone.talk)
    clone.end()


def test_what_is_asked_wrongly_is_explained(tool: Tool, start: Callable[..., Program], tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        done = tool.run(*arguments, check=False)
        assert done.returncode == 1 and not done.stdout
        return done.stderr

    assert "another terminal" in refused("checkpoint", "--pid", os.getpid(), "--to", tmp_path / "saved")
    assert "pgrep" in refused("checkpoint", "--pid", 2**22 - 1, "--to", tmp_path / "saved")
    assert "no process ID" in refused("checkpoint", "--pid", "0", "--to", tmp_path / "saved")
    program = start(COUNTER)
    counted(program.talk)
    assert "exists already" in refused("checkpoint", "--pid", program.pid, "--to", tmp_path)
    assert counted(program.talk)


def test_a_socket_to_elsewhere_is_named_and_comes_back_closed(
    tool: Tool, start: Callable[..., Program], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        source = f"""
            import socket, sys
            connection = socket.create_connection(("127.0.0.1", {elsewhere.getsockname()[1]}))
            for line in sys.stdin:
                try:
                    print("read", connection.recv(1), flush=True)
                except OSError as error:
                    print(error.errno, flush=True)
        """
        program = start(source)
        accepted, _ = elsewhere.accept()
        report = tool.checkpoint(program.pid, tmp_path / "saved")
        assert any(str(elsewhere.getsockname()[1]) in warning for warning in report["warnings"]), report
        accepted.close()
        clone = tool.restore(tmp_path / "saved")
        try:
            assert not clone.talk.ask("?").startswith("read b'x"), "nothing of the old connection is there"
        finally:
            clone.end()


def test_an_image_can_be_looked_at(tool: Tool, start: Callable[..., Program], tmp_path: Path) -> None:
    program = start(FAMILY)
    assert program.talk.ask("go") == "1 2 3"
    tool.checkpoint(program.pid, tmp_path / "saved")
    text = tool.run("image", "show", tmp_path / "saved").stdout
    for wanted in ("4 processes", "standard input of whoever restores", "waits in", "Unix socket", "clones share"):
        assert wanted in text, wanted
    seen = json.loads(tool.run("image", "show", tmp_path / "saved", "--json").stdout)
    assert len(seen["processes"]) == seen["counts"]["processes"] == 4
    assert seen["processes"][1]["parent_pid"] == seen["processes"][0]["pid"] == program.pid
    saved = sum(mapping["saved_bytes"] for process in seen["processes"] for mapping in process["mappings"])
    assert saved == seen["sharing"]["copy_on_write_bytes"] <= seen["page_bytes"]
    plan = tool.run("image", "show", tmp_path / "saved", "--plan").stdout
    assert re.search(r"^ +\d+ +mmap\(", plan, re.M) and "clone:" in plan


def test_a_large_heap_loads_fast(tool: Tool, start: Callable[..., Program], tmp_path: Path) -> None:
    program = start(HEAP, 512)
    assert program.talk.hear() == "ready"
    report = tool.checkpoint(program.pid, tmp_path / "saved")
    speeds = []
    # A virtual machine that has never used its memory gets it slowly, so the first time says little.
    for _ in range(3):
        clone = tool.restore(tmp_path / "saved")
        assert clone.talk.ask("?") == "True"
        speeds.append(report["page_bytes"] / (1 << 30) / (clone.report["load_ms"] / 1000))
        clone.end()
    print("GiB/s:", *[f"{speed:.2f}" for speed in speeds], f"paused for {report['pause_ms']:.0f} ms")
    assert max(speeds) > 0.3, "far below what any disk cache gives; see the printed figures"
