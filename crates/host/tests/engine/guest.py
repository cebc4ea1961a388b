"""A guest of the engine's tests: initializes, waits on one connection, and answers probes about itself.

Every probe looks at something that a restore must bring back or make anew. It runs on a plain interpreter, in a
sandbox, without a runtime client.
"""

import ctypes
import hashlib
import json
import mmap
import os
import random
import signal
import socket
import ssl
import subprocess  # noqa: F401  (the expressions of tests use it)
import sys
import threading
import time

HEAP = bytearray(os.urandom(4096)) * (256 * int(os.environ.get("HEAP_MIB", "1")))
HEAP_DIGEST = hashlib.sha256(HEAP).hexdigest()
SHARED = mmap.mmap(-1, 8192)
SHARED[:5] = b"share"
ssl.RAND_bytes(8)
random.random()
signal.signal(signal.SIGUSR1, lambda *_: None)
READ, WRITE = os.pipe()
os.write(WRITE, b"in the pipe")
LEFT, RIGHT = socket.socketpair()
EVENT = os.eventfd(7) if hasattr(os, "eventfd") else None
with open("/tmp/made-at-init", "w") as file:
    file.write("kept")
os.mkdir("/tmp/dir")
os.symlink("../made-at-init", "/tmp/dir/link")
OPEN = open("/tmp/open", "w+")
OPEN.write("0123456789")
OPEN.flush()
OPEN.seek(4)
COUNTER = [0]
WORK = threading.Semaphore(0)
DONE = threading.Semaphore(0)


def worker() -> None:
    """Counts on demand, in another thread that waits in between."""
    while True:
        WORK.acquire()
        COUNTER[0] += 1
        DONE.release()


for index in range(3):
    threading.Thread(target=worker, daemon=True, name=f"worker{index}").start()
time.sleep(0.1)


def probe() -> dict:
    """Everything at once."""
    WORK.release()
    DONE.acquire(timeout=2)
    libc = ctypes.CDLL(None)
    sysgenid = open("/dev/sysgenid", "rb").read(4).hex() if os.path.exists("/dev/sysgenid") else None
    SHARED.seek(0)
    result = {
        "urandom": os.urandom(8).hex(),
        "ssl": ssl.RAND_bytes(8).hex(),
        "random": random.random(),
        "pid": os.getpid(),
        "tid": threading.get_native_id(),
        "ppid": os.getppid(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": os.getgroups(),
        "time": time.time(),
        "monotonic": time.monotonic(),
        "heap": hashlib.sha256(HEAP).hexdigest() == HEAP_DIGEST,
        "shared": SHARED.read(5).decode(),
        "pipe": os.read(READ, 64).decode(),
        "pair": pair_works(),
        "eventfd": os.eventfd_read(EVENT) if EVENT is not None else 7,
        "tmp": open("/tmp/dir/link").read(),
        "rest": OPEN.read(),
        "counter": COUNTER[0],
        "cwd": os.getcwd(),
        "hostname": socket.gethostname(),
        "sysgenid": sysgenid,
        "status": open("/proc/self/status").read(),
        "dumpable": libc.prctl(3),
        "children": subprocess_works(),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "threads": sorted(open(f"/proc/self/task/{tid}/comm").read().strip() for tid in os.listdir("/proc/self/task")),
    }
    SHARED[:5] = b"mine!"
    return result


def pair_works() -> str:
    """Bytes go both ways through the pair of sockets."""
    LEFT.send(b"there")
    RIGHT.send(b"back")
    return RIGHT.recv(9).decode() + LEFT.recv(9).decode()


def subprocess_works() -> str:
    """A fork and an exec in the clone."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(write, 1)
        os.execv("/bin/sh", ["sh", "-c", "printf alive"])
    os.close(write)
    _, status = os.waitpid(pid, 0)
    text = os.read(read, 64).decode()
    os.close(read)
    return f"{text} {status}"


def main() -> None:
    """Announces itself and serves."""
    connection = socket.create_connection(("127.0.0.1", 9001))
    connection.sendall(b"ready\n")
    received = b""
    while True:
        while b"\n" not in received:
            chunk = connection.recv(65536)
            if not chunk:
                sys.exit(0)
            received += chunk
        line, received = received.split(b"\n", 1)
        command = line.decode()
        if command == "ping":
            answer: object = "pong"
        elif command == "probe":
            answer = probe()
        elif command == "crash":
            ctypes.string_at(0)
        else:
            answer = eval(command)
        connection.sendall(json.dumps(answer).encode() + b"\n")


main()
