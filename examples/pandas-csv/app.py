"""Loads a bundled CSV with pandas at init and answers questions about it.

The import of pandas and the parsing of the file are what makes a cold start slow; SnapStart pays for them once, at
publish.
"""

import os

import pandas

SALES = pandas.read_csv(os.path.join(os.path.dirname(__file__), "sales.csv"), parse_dates=["date"])


def handler(event: dict, context: object) -> dict:
    """`{"action": "ping"}` touches no data; `{"action": "sum", "by": COLUMN}` groups the sales by a column."""
    action = event.get("action", "ping")
    if action == "ping":
        return {"rows": len(SALES)}
    if action == "sum":
        column = event.get("by", "region")
        totals = SALES.groupby(column)["amount"].sum().round(2).sort_values(ascending=False)
        return {"by": column, "totals": {str(key): float(value) for key, value in totals.items()}}
    raise ValueError(f"unknown action {action!r}: use ping or sum")
