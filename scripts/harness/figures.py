"""Reads durations from Lambda's platform log lines and sums up samples."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass

_DURATION = r"{name}: ([0-9.]+) ms"


def duration_ms(log: str, name: str) -> float | None:
    """The value of a field such as `Init Duration` in a REPORT, INIT_REPORT or RESTORE_REPORT line, in milliseconds."""
    pattern = r"(?<!Billed )" + _DURATION.format(name=re.escape(name))
    found = re.search(pattern, log)
    return float(found.group(1)) if found else None


@dataclass(frozen=True)
class Summary:
    """What is told of a series of samples."""

    count: int
    median: float
    p99: float
    smallest: float
    largest: float


def summarize(samples: list[float]) -> Summary:
    """Median and 99th percentile (nearest rank: with fewer than 100 samples that is the largest)."""
    if not samples:
        raise ValueError("no samples to summarize")
    ordered = sorted(samples)
    rank = math.ceil(0.99 * len(ordered)) - 1
    return Summary(len(ordered), statistics.median(ordered), ordered[rank], ordered[0], ordered[-1])


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns: first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2)] + ["-" * (width + 1) + ":" for width in widths[1:]]) + "|"
    return "\n".join([line(header), rule, *[line(row) for row in rows]])
