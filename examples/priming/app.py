"""Warm-up events: what the first request would import and compute is in the snapshot.

pandas is imported where it is needed, as a function with several duties does it. Deployed with the environment
variables REKINDLE_WARM_UP_EVENTS=2 and REKINDLE_WARM_UP_EVENT={"action": "sum"}, a version published with SnapStart
runs that event twice before its snapshot, and no caller waits for the import.
"""

from snapshot_restore_py import register_before_snapshot

CSV = "region,amount\nnorth,12.5\nsouth,7.25\nnorth,3.0\neast,9.75\n"

counts = {"warm-up": 0, "real": 0}


@register_before_snapshot
def tell() -> None:
    """Runs after the warm-up events, right before the snapshot: the place to drop what they left behind."""
    print(f"going into the snapshot after {counts['warm-up']} warm-up events")


def handler(event: dict, context: object) -> dict:
    """`{"action": "ping"}` needs nothing; `{"action": "sum"}` imports pandas and adds the amounts of each region."""
    counts["warm-up" if is_warm_up(context) else "real"] += 1
    if event.get("action", "ping") == "ping":
        return {"counts": counts}
    import io

    import pandas

    totals = pandas.read_csv(io.StringIO(CSV)).groupby("region")["amount"].sum()
    return {"counts": counts, "totals": {str(region): float(amount) for region, amount in totals.items()}}


def is_warm_up(context: object) -> bool:
    """A warm-up event says so in its client context: a function must not charge a card for one."""
    return bool(context.client_context and (context.client_context.custom or {}).get("rekindle-warm-up"))
