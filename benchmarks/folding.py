"""What folding is worth: the raw graph and the folded one, one instance at a time, in the very sessions that serve.

`python -m benchmarks.folding`. Without HTTP; blocks of runs of the one and of the other take turns on one core.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.cores import on_cores, server_cores
from benchmarks.models import SHAPES, BuiltModel, build_model, random_instances
from service.session import Session, open_session

NUM_BLOCKS = 300
RUNS_PER_BLOCK = 50


@dataclass(frozen=True, kw_only=True)
class FoldingGain:
    """Nodes, and µs for one run at batch 1, before and after. `ratio` is before over after, median over blocks."""

    model: str
    num_nodes_before: int
    num_nodes_after: int
    before_us: float
    after_us: float
    ratio: float

    def __str__(self) -> str:
        return (
            f"{self.model}: {self.num_nodes_before} nodes, {self.before_us:.1f} µs a run; folded "
            f"{self.num_nodes_after} nodes, {self.after_us:.1f} µs: {self.ratio:.2f} times as fast"
        )


def measure_folding(built: BuiltModel, *, num_blocks: int = NUM_BLOCKS) -> FoldingGain:
    """Time the graph before and after the fold."""
    signature, report = built.bundle.manifest.signature, built.bundle.manifest.fold
    sessions = [
        open_session(path, signature=signature, device="cpu") for path in (built.raw_path, built.bundle.model_path)
    ]
    for session in sessions:
        np.copyto(session.input, random_instances(built.shape, 1))
        _time_block(session)
    blocks = [tuple(map(_time_block, sessions)) for _ in range(num_blocks)]
    return FoldingGain(
        model=built.shape.name,
        num_nodes_before=report.num_nodes_before,
        num_nodes_after=report.num_nodes_after,
        before_us=statistics.median(before for before, _ in blocks),
        after_us=statistics.median(after for _, after in blocks),
        ratio=statistics.median(before / after for before, after in blocks),
    )


def _time_block(session: Session) -> float:
    """Microseconds for a run, over a block of them."""
    start = time.perf_counter()
    for _ in range(RUNS_PER_BLOCK):
        session.run()
    return (time.perf_counter() - start) / RUNS_PER_BLOCK * 1e6


def main() -> None:
    """Print what folding is worth for each shape."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder, on_cores(server_cores()):
        for shape in SHAPES:
            console.print(str(measure_folding(build_model(shape, Path(folder)))), highlight=False)


if __name__ == "__main__":
    main()
