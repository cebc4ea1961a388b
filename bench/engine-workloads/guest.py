"""The line protocol of the engine's benchmark, for Python programs.

A program says `ready` when its init is over and then answers each line with one line. It connects to the platform's
port of its sandbox; with BENCH_LISTEN it listens on that port instead, because CRIU restores a listening socket without
any help while a connection needs some. `fork KIND` is answered by a fork of the live process, which is what a restore
is held against.
"""

import os
import socket
import sys
from collections.abc import Callable

PLATFORM = ("127.0.0.1", 9001)
WARM_UPS = 2
"""How often each kind of request runs before the snapshot: the first one of a clone must find its path warm."""


def serve(kinds: dict[str, Callable[[], object]]) -> None:
    """Runs each kind of request ahead and serves until the other side goes."""
    for _ in range(WARM_UPS):
        for handle in kinds.values():
            handle()
    if "BENCH_LISTEN" in os.environ:
        listener = socket.create_server(("127.0.0.1", int(os.environ["BENCH_LISTEN"])))
        while True:
            connection, _ = listener.accept()
            answer_lines(connection, kinds)
            connection.close()
    answer_lines(socket.create_connection(PLATFORM), kinds)


def answer_lines(connection: socket.socket, kinds: dict[str, Callable[[], object]]) -> None:
    """Answers until the other side closes."""
    connection.sendall(b"ready\n")
    while line := connection.recv(256):
        words = line.decode().split()
        if words[0] == "fork":
            child = os.fork()
            if child == 0:
                connection.sendall(f"{kinds[words[1]]()}\n".encode())
                os._exit(0)
            os.waitpid(child, 0)
        else:
            connection.sendall(f"{kinds[words[0]]()}\n".encode())
    if "BENCH_LISTEN" not in os.environ:
        sys.exit(0)
