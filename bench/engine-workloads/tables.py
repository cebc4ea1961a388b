"""pandas with a table that was made at init; the real request groups it."""

import numpy
import pandas
from guest import serve

ROWS = 20_000
RANDOM = numpy.random.default_rng(1)
SALES = pandas.DataFrame(
    {"region": RANDOM.choice(["north", "south", "east", "west"], ROWS), "amount": RANDOM.random(ROWS) * 100}
)


def group() -> str:
    """Sums by region."""
    return str(SALES.groupby("region")["amount"].sum().round(2).to_dict())


serve({"trivial": lambda: f"pong {len(SALES)}", "real": group})
