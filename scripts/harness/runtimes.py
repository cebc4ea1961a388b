"""Chooses the Python runtime that the demo, the tests and the benchmarks use, and finds its interpreter."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

PREFERRED = ["python3.12", "python3.13", "python3.14", "python3.11", "python3.10"]
"""python3.12 is what the examples are pinned for; langchain needs 3.10 or later."""


def install_best(binary: Path, data_dir: Path, wanted: list[str] | None = None) -> str:
    """Installs the first runtime whose interpreter this machine has and returns its identifier."""
    complaints = []
    for runtime in wanted or PREFERRED:
        command = [str(binary), "runtime", "install", runtime, "--data-dir", str(data_dir)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            print(f"        {done.stdout.strip()}", flush=True)
            return runtime
        complaints.append(done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"{runtime}: no reason given")
    raise RuntimeError("no Python runtime can be installed:\n" + "\n".join(complaints))


def interpreter(data_dir: Path, runtime: str) -> Path:
    """The interpreter's program on the host."""
    description = json.loads((data_dir / "runtimes" / runtime / "runtime.json").read_text())
    program = Path(description["argv"][0])
    for bind in description["binds"]:
        if program.is_relative_to(bind["target"]):
            return Path(bind["source"]) / program.relative_to(bind["target"])
    return program
