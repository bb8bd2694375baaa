"""From a process's start to its first answer: `python -m benchmarks.startup`, and part of `make bench`.

The service and the tutorial's FastAPI for the small model, taking turns, each on the server's core; the files were read
before, so the disk's caches are warm. Where the service's time goes is measured in processes of their own.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.cast import FOLDSERVE, TUTORIAL, Peer
from benchmarks.cores import on_cores, server_cores
from benchmarks.models import SHAPES, BuiltModel, build_model
from benchmarks.requests import make_requests
from benchmarks.servers import running

NUM_STARTS = 7
NUM_PACKAGES = 8
SMALL = SHAPES[-1]


@dataclass(frozen=True)
class Start:
    """Seconds from a server's start to its first answer, of several starts."""

    peer: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class StartUp:
    """How long servers take to start; seconds of each of the service's steps, and of what it imports (its own time)."""

    model: str
    starts: tuple[Start, ...]
    steps: dict[str, float]
    imports: dict[str, float]

    def median_of(self, peer: Peer) -> float:
        """The median seconds of one server."""
        return next(start.median for start in self.starts if start.peer == peer.name)


def measure_startup(built: BuiltModel, *, num_starts: int = NUM_STARTS) -> StartUp:
    """Start both servers several times, and look into the service's start."""
    first = make_requests(built, 1).bodies[0]
    seconds: dict[str, list[float]] = {TUTORIAL.name: [], FOLDSERVE.name: []}
    for _ in range(num_starts):
        for peer in (TUTORIAL, FOLDSERVE):
            with running(peer, built, first) as server:
                seconds[peer.name].append(server.start_seconds)
    with on_cores(server_cores()):
        steps = [_time_steps(built.bundle.directory) for _ in range(num_starts)]
        imports = [_time_imports() for _ in range(num_starts)]
    return StartUp(
        model=built.shape.name,
        starts=tuple(Start(peer, tuple(each)) for peer, each in seconds.items()),
        steps=_medians(steps),
        imports=dict(Counter(_medians(imports)).most_common(NUM_PACKAGES)),
    )


def read_import_times(text: str) -> dict[str, float]:
    """Seconds that each package's own modules took, from what `python -X importtime` writes."""
    own: Counter[str] = Counter()
    for microseconds, module in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", text, re.MULTILINE):
        own[module.partition(".")[0]] += int(microseconds) / 1e6  # type: ignore[assignment]
    return dict(own)


def _time_steps(bundle: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.opening", str(bundle)]
    steps: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return steps


def _time_imports() -> dict[str, float]:
    command = [sys.executable, "-X", "importtime", "-c", "import service.server, service.workers"]
    return read_import_times(subprocess.run(command, capture_output=True, text=True, check=True).stderr)


def _medians(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each.get(name, 0.0) for each in measured) for name in measured[0]}


def describe_startup(startup: StartUp) -> list[str]:
    """The report's lines: each server, then the service's steps, then its imports."""
    servers = [
        f"{start.peer}: {start.median:.2f} s ({min(start.seconds):.2f} to {max(start.seconds):.2f}, "
        f"{len(start.seconds)} starts)"
        for start in startup.starts
    ]
    return [*servers, f"steps: {_list_ms(startup.steps)}", f"imports, own time: {_list_ms(startup.imports)}"]


def _list_ms(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {1e3 * each:.0f} ms" for name, each in seconds.items())


def main() -> None:
    """Print it."""
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder:
        startup = measure_startup(build_model(SMALL, Path(folder)))
    Console().print("\n".join(describe_startup(startup)), highlight=False, markup=False)


if __name__ == "__main__":
    main()
