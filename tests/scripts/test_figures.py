"""The words that the demo, the benchmarks and the tests read answers with are checked themselves."""

from __future__ import annotations

import pytest
from harness.figures import duration_ms, summarize, table

RESTORED = (
    "RESTORE_REPORT Restore Duration: 3.55 ms\n"
    "REPORT RequestId: 1\tDuration: 12.31 ms\tBilled Duration: 16 ms\tMemory Size: 512 MB\tMax Memory Used: 88 MB\t"
    "Restore Duration: 3.55 ms\tBilled Restore Duration: 2 ms\t\n"
)
INITIALIZED = "REPORT RequestId: 1\tDuration: 12.31 ms\tBilled Duration: 213 ms\tInit Duration: 200.20 ms\t\n"


@pytest.mark.parametrize(
    ("log", "name", "expected"),
    [
        (RESTORED, "Restore Duration", 3.55),
        (RESTORED, "Init Duration", None),
        (INITIALIZED, "Init Duration", 200.2),
        (INITIALIZED, "Restore Duration", None),
        ("REPORT Billed Restore Duration: 2 ms", "Restore Duration", None),
    ],
)
def test_durations_are_read_from_report_lines(log: str, name: str, expected: float | None) -> None:
    assert duration_ms(log, name) == expected


def test_summary() -> None:
    summary = summarize([float(sample) for sample in range(1, 201)])
    assert (summary.count, summary.median, summary.p99, summary.largest) == (200, 100.5, 198.0, 200.0)
    assert summarize([5.0]).p99 == 5.0
    with pytest.raises(ValueError):
        summarize([])


def test_table_is_aligned_markdown() -> None:
    lines = table(["name", "ms"], [["hello", "1.5"], ["x", "10.25"]]).splitlines()
    assert lines[0] == "| name  |    ms |" and lines[1] == "|-------|------:|" and lines[3] == "| x     | 10.25 |"
