"""Shows what a long piece of work is doing: a turning line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from types import TracebackType

_TURN_INTERVAL_S = 0.1


class Step:
    """`with Step("build the server"):` shows the step while it runs and how long it took."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._detail = ""
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def update(self, detail: str) -> None:
        """Shows what the step is at, such as `7 of 20`."""
        self._detail = detail

    def __enter__(self) -> Step:
        self._started = time.monotonic()
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._turn, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._done.set()
        if self._thread:
            self._thread.join()
        mark = "failed" if kind else "done"
        print(f"\r\033[K{self._line(mark)}" if self._thread else self._line(mark), file=sys.stderr, flush=True)

    def _turn(self) -> None:
        for sign in itertools.cycle("|/-\\"):
            if self._done.wait(_TURN_INTERVAL_S):
                return
            print(f"\r\033[K{self._line(sign)}", end="", file=sys.stderr, flush=True)

    def _line(self, mark: str) -> str:
        detail = f" ({self._detail})" if self._detail else ""
        return f"{mark:>6}  {self._what}{detail}  {time.monotonic() - self._started:.1f} s"
