"""Where things are in the checkout. Absent on purpose: any path outside of it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache"
EXAMPLES = ROOT / "examples"


def target_dir() -> Path:
    """Cargo's target directory."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def binary(profile: str = "release") -> Path:
    """The server's binary: the one named by REKINDLE_BINARY, else the one that Cargo built with that profile."""
    named = os.environ.get("REKINDLE_BINARY")
    return Path(named) if named else target_dir() / profile / "rekindle"
