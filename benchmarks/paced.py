"""One window of open-loop load: the generator in a process of its own, and whether what it measured means something."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from benchmarks.cores import on_cores
from benchmarks.errors import LoadFailed
from benchmarks.generator import Order, Paced

# A latency may be too long by what the generator was late: up to this part of it we let it be.
LARGEST_LATENESS = 0.25
LONGEST_SECONDS = 60.0


def apply_pace(order: Order, *, cores: frozenset[int] | None = None) -> Paced:
    """Let the generator follow its order on these cores.

    Raises:
        LoadFailed: it failed, or an answer was missing or not a success.
    """
    command = [sys.executable, "-m", "benchmarks.generator", msgspec.json.encode(order).decode()]
    with on_cores(cores):
        finished = subprocess.run(command, capture_output=True, check=False, timeout=order.seconds + LONGEST_SECONDS)
    if finished.returncode:
        said = finished.stderr.decode().strip().splitlines() or ["nothing"]
        raise LoadFailed(f"the generator failed and said last: {said[-1]}")
    paced = msgspec.json.decode(finished.stdout, type=Paced)
    if paced.errors:
        counted = ", ".join(f"{count} {kind}" for kind, count in paced.errors.items())
        raise LoadFailed(f"{paced.requests} requests were answered; errors: {counted}")
    return paced


def kept_pace(paced: Paced) -> bool:
    """Whether the generator was so little late that the latencies are the server's."""
    return paced.late_p50 <= LARGEST_LATENESS * paced.p50 and paced.late_p99 <= LARGEST_LATENESS * paced.p99
