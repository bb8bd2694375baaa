"""What a run found, as a value; how it is shown is `markdown.py` and `terminal.py`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cast import FOLDSERVE, IN_OTHER_PROTOCOLS
from benchmarks.folding import FoldingGain
from benchmarks.models import Shape
from benchmarks.startup import StartUp
from benchmarks.steps import Steps
from benchmarks.summary import PacedRow, PacedWindow, Row, Window, summarise, summarise_paced, worst_spread

COLUMNS = ("conn.", "server", "req/s", "spread", "p50 µs", "p99 µs", "CPU µs", "× floor", "× tutorial")
PACED_COLUMNS = ("server", "arrivals", "req/s", "p50 µs", "p99 µs", "p99.9 µs", "p99/p50", "late µs", "windows")
SERVER_COLUMNS = ("server", "memory, MB", "first answer, s")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a server takes beside time for requests: memory after the load (None: unknown), and seconds to start."""

    model: str
    peer: str
    memory_bytes: int | None
    start_seconds: float


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long what goes over the wire is, in bytes: the medians of a server's requests' bodies and of its answers'."""

    model: str
    peer: str
    body_bytes: int
    answer_bytes: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that is told about a run. A run beside other model servers has no folding, start-up and steps."""

    date: str
    command: str
    machine: dict[str, str]
    shapes: tuple[Shape, ...]
    lengths: tuple[Lengths, ...]
    windows: tuple[Window, ...]
    paced_windows: tuple[PacedWindow, ...]
    costs: tuple[Cost, ...]
    folding: tuple[FoldingGain, ...] = ()
    startup: StartUp | None = None
    steps: tuple[Steps, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """The table of all shapes."""
        return summarise(self.windows)

    @property
    def paced_rows(self) -> tuple[PacedRow, ...]:
        """The table of open-loop load, of all shapes."""
        return summarise_paced(self.paced_windows)


def describe_shape(report: Report, shape: Shape) -> str:
    """One line: the network, and what goes over the wire."""
    plain = next(one for one in report.lengths if (one.model, one.peer) == (shape.name, FOLDSERVE.name))
    return (
        f"{shape.name}: {shape.num_values} floats, {shape.describe()}. "
        f"Bodies of {plain.body_bytes} bytes, answers of {plain.answer_bytes}."
    )


def headlines(report: Report) -> list[str]:
    """One sentence for each shape: foldserve under the connections that the project states its aim for, 16 if any."""
    chosen = usual_connections(report)
    return [_headline(row) for row in report.rows if (row.peer, row.connections) == (FOLDSERVE.name, chosen)]


def usual_connections(report: Report) -> int:
    """The number of connections that a sentence is about: 16, or the largest where that was not measured."""
    connections = {window.connections for window in report.windows}
    return 16 if 16 in connections else max(connections)


def main_rows(report: Report, shape: Shape) -> list[Row]:
    """The rows of one shape's main table: all but those in other protocols."""
    others = {peer.name for peer in IN_OTHER_PROTOCOLS}
    return [row for row in report.rows if row.model == shape.name and row.peer not in others]


def noise(report: Report) -> str:
    """How far the numbers can be trusted."""
    others = [window.usage.cores_of_others for window in report.windows]
    return (
        f"Largest spread of req/s over rounds: {worst_spread(report.rows):.0%}. "
        f"Others kept {statistics.median(others):.2f} cores busy meanwhile (median over windows), "
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
        f"{row.cpu:,.0f}",
        f"{row.to_floor:.2f}",
        f"{row.to_tutorial:.2f}",
    )


def paced_cells(row: PacedRow) -> Sequence[str]:
    """A row in the order of `PACED_COLUMNS`."""
    latencies = (row.p50, row.p99, row.p999)
    return (
        row.peer,
        row.arrivals,
        f"{row.rate:,.0f}",
        *(f"{latency:,.0f}" if row.kept else "" for latency in latencies),
        f"{row.tail:.1f}" if row.kept else "",
        f"{row.late_p99:,.0f}",
        f"{row.kept} of {row.num_rounds}",
    )


def cost_cells(cost: Cost) -> Sequence[str]:
    """A row in the order of `SERVER_COLUMNS`."""
    memory = "" if cost.memory_bytes is None else f"{cost.memory_bytes / 1e6:,.0f}"
    return (cost.peer, memory, f"{cost.start_seconds:.2f}")


def _headline(row: Row) -> str:
    plural = "connection" if row.connections == 1 else "connections"
    return (
        f"{row.model}, one worker, {row.connections} {plural}: {row.requests_per_second:,.0f} req/s, "
        f"{row.to_tutorial:.1f} times the tutorial's, {row.to_floor:.2f} of the floor's."
    )
