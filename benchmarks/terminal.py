"""A report for the one who waits in front of the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.models import Shape
from benchmarks.report import COLUMNS, Report, cells, describe_shape, headlines, noise


def show(report: Report, console: Console) -> None:
    """Print the machine, a table for each shape, and what it comes down to."""
    for what, words in report.machine.items():
        console.print(f"{what}: {words}", highlight=False)
    for shape in report.shapes:
        console.print(_table(report, shape))
    for line in (*map(str, report.folding), noise(report), *headlines(report)):
        console.print(line, highlight=False)


def _table(report: Report, shape: Shape) -> Table:
    table = Table(title=describe_shape(report, shape), title_justify="left", title_style="", box=box.SIMPLE, padding=0)
    for column in COLUMNS:
        table.add_column(
            column, min_width=max(map(len, column.split())), justify="left" if column == "server" else "right"
        )
    rows = [row for row in report.rows if row.model == shape.name]
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        ends = following is not None and following.connections != row.connections
        table.add_row(*cells(row), end_section=ends)
    return table
