"""Takes series of cold starts: invokes with pauses in which the server takes the idle environment down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .api import Answer, Invoker
from .figures import duration_ms

IDLE_TIMEOUT_MS = 50
"""Start the server with `--idle-timeout-ms` of this, so that every spaced invocation is a cold start."""

PAUSE_S = 0.4
"""Between two invocations: long enough for the idle environment to go and for a fresh sandbox to wait ready."""


@dataclass
class Series:
    """Cold starts of one version. `phase_ms` is the init or the restore, as the REPORT line tells it."""

    phase_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)
    fallbacks: int = 0
    """How often a version with a snapshot was served by a normal init."""


def take(
    invoker: Invoker,
    name: str,
    version: str,
    count: int,
    event: Any = None,
    restored: bool = False,
    report: Callable[[int], None] = lambda done: None,
) -> Series:
    """Takes `count` cold starts. An invocation that met a warm environment does not count and is repeated.

    Raises RuntimeError if the function fails or if cold starts cannot be had.
    """
    series = Series()
    warm = 0
    while len(series.total_ms) + series.fallbacks < count:
        time.sleep(PAUSE_S)
        answer = invoker.invoke(name, version, event)
        check(name, version, answer)
        restore_ms = duration_ms(answer.log, "Restore Duration")
        init_ms = duration_ms(answer.log, "Init Duration")
        phase_ms = restore_ms if restored else init_ms
        if phase_ms is not None:
            series.phase_ms.append(phase_ms)
            series.total_ms.append(answer.elapsed_ms)
        elif restored and init_ms is not None:
            series.fallbacks += 1
        else:
            warm += 1
            if warm > count + 5:
                raise RuntimeError(f"take cold starts of {name}:{version}: it stays warm; last log:\n{answer.log}")
        report(len(series.total_ms) + series.fallbacks)
    return series


def check(name: str, version: str, answer: Answer) -> None:
    """Raises RuntimeError unless the invocation succeeded."""
    if answer.status != 200 or answer.function_error:
        raise RuntimeError(f"invoke {name}:{version}: {answer.status} {answer.payload[:500]!r}\n{answer.log}")
