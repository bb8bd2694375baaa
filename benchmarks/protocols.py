"""The same model asked in other protocols: a table of its own, and in a sentence how each stands beside `/predict`."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cast import FOLDSERVE, IN_OTHER_PROTOCOLS
from benchmarks.models import Shape
from benchmarks.report import COLUMNS as MAIN_COLUMNS
from benchmarks.report import Lengths, Report, cells, usual_connections
from benchmarks.summary import Row

COLUMNS = (*MAIN_COLUMNS[:-1], "× /predict", "body, bytes", "answer, bytes")


def are_in(report: Report) -> bool:
    """Whether a run measured them."""
    return bool({window.peer for window in report.windows} & {peer.name for peer in IN_OTHER_PROTOCOLS})


def rows(report: Report, shape: Shape) -> list[Sequence[str]]:
    """One shape's table, in the order of `COLUMNS`; our own protocol comes first."""
    names = {peer.name for peer in (FOLDSERVE, *IN_OTHER_PROTOCOLS)}
    lengths = {one.peer: one for one in report.lengths if one.model == shape.name}
    own = [row for row in report.rows if row.model == shape.name and row.peer in names]
    return [_cells(row, lengths[row.peer]) for row in own]


def headlines(report: Report) -> list[str]:
    """One sentence for each shape: what the others reach beside `/predict`, within the rounds. None where none ran."""
    return [_headline(report, shape) for shape in report.shapes] if are_in(report) else []


def _cells(row: Row, lengths: Lengths) -> Sequence[str]:
    usual = cells(row)[:-1]
    return (*usual, f"{row.to_predict:.2f}", f"{lengths.body_bytes:,}", f"{lengths.answer_bytes:,}")


def _headline(report: Report, shape: Shape) -> str:
    connections = usual_connections(report)
    names = {peer.name for peer in IN_OTHER_PROTOCOLS if not peer.is_floor}
    here = [row for row in report.rows if (row.model, row.connections) == (shape.name, connections)]
    ratios = ", ".join(f"{row.peer} {row.to_predict:.2f}" for row in here if row.peer in names)
    return f"{shape.name} in other protocols, req/s beside those of /predict over {connections} connections: {ratios}."
