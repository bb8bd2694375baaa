"""What a run found, as a value; how it is shown is `markdown.py` and `terminal.py`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.folding import FoldingGain
from benchmarks.models import Shape
from benchmarks.servers import FOLDSERVE
from benchmarks.summary import Row, Window, summarise, worst_spread

COLUMNS = ("conn.", "server", "req/s", "spread", "p50 µs", "p99 µs", "CPU µs", "× floor", "× tutorial", "× tutorial-1")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that is told about a run. `body_bytes` and `answer_bytes` are by the shape's name."""

    date: str
    command: str
    machine: dict[str, str]
    shapes: tuple[Shape, ...]
    body_bytes: dict[str, int]
    answer_bytes: dict[str, int]
    windows: tuple[Window, ...]
    folding: tuple[FoldingGain, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """The table of all shapes."""
        return summarise(self.windows)


def describe_shape(report: Report, shape: Shape) -> str:
    """One line: the network, and what goes over the wire."""
    return (
        f"{shape.name}: {shape.num_values} floats, {shape.describe()}. "
        f"Bodies of {report.body_bytes[shape.name]} bytes, answers of {report.answer_bytes[shape.name]}."
    )


def headlines(report: Report) -> list[str]:
    """One sentence for each shape: foldserve under the connections that the project states its aim for, 16 if any."""
    own = [row for row in report.rows if row.peer == FOLDSERVE]
    connections = {row.connections for row in own}
    chosen = 16 if 16 in connections else max(connections)
    return [_headline(row) for row in own if row.connections == chosen]


def noise(report: Report) -> str:
    """How far the numbers can be trusted."""
    others = [window.usage.cores_of_others for window in report.windows if window.usage is not None]
    spread = f"Largest spread of req/s over rounds: {worst_spread(report.rows):.0%}."
    if not others:
        return spread
    return (
        f"{spread} Others kept {statistics.median(others):.2f} cores busy meanwhile (median over windows), "
        f"{max(others):.2f} at worst."
    )


def cells(row: Row) -> Sequence[str]:
    """A row in the order of `COLUMNS`."""
    return (
        str(row.connections),
        row.peer,
        f"{row.requests_per_second:,.0f}",
        f"{row.spread:.0%}",
        f"{row.p50:,.0f}",
        f"{row.p99:,.0f}",
        "" if row.cpu is None else f"{row.cpu:,.0f}",
        f"{row.to_floor:.2f}",
        f"{row.to_tutorial:.2f}",
        f"{row.to_one_thread:.2f}",
    )


def _headline(row: Row) -> str:
    plural = "connection" if row.connections == 1 else "connections"
    return (
        f"{row.model}, one worker, {row.connections} {plural}: {row.requests_per_second:,.0f} req/s, "
        f"{row.to_tutorial:.1f} times the tutorial's "
        f"({row.to_one_thread:.1f} times with its ONNX Runtime on one thread), "
        f"{row.to_floor:.2f} of the floor's."
    )
