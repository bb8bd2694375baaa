"""A report for the one who waits in front of the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import protocols, steps
from benchmarks.goals import Goal, goals
from benchmarks.models import Shape
from benchmarks.report import (
    COLUMNS,
    PACED_COLUMNS,
    SERVER_COLUMNS,
    Report,
    cells,
    cost_cells,
    describe_shape,
    headlines,
    main_rows,
    noise,
    paced_cells,
)
from benchmarks.startup import describe_startup

WORDS = frozenset({"server", "arrivals", "step"})


def show(report: Report, console: Console) -> None:
    """Print the machine, the tables of each shape, and what it comes down to."""
    for what, words in report.machine.items():
        console.print(f"{what}: {words}", highlight=False)
    for shape in report.shapes:
        console.print(_closed(report, shape))
        console.print(_table(PACED_COLUMNS, [paced_cells(row) for row in report.paced_rows if row.model == shape.name]))
        console.print(_table(SERVER_COLUMNS, [cost_cells(cost) for cost in report.costs if cost.model == shape.name]))
        if protocols.are_in(report):
            console.print(_table(protocols.COLUMNS, protocols.rows(report, shape), "In other protocols"))
    for each in report.steps:
        console.print(_table(steps.COLUMNS, steps.rows(each), each.model))
    startup = describe_startup(report.startup) if report.startup is not None else []
    sentences = (noise(report), *headlines(report), *protocols.headlines(report), *map(_say, goals(report)))
    for line in (*startup, *map(str, report.folding), *sentences):
        console.print(line, highlight=False)


def _say(goal: Goal) -> str:
    return f"{'reached' if goal.reached else 'NOT reached'}: {goal.goal}: {goal.measured}"


def _closed(report: Report, shape: Shape) -> Table:
    rows = main_rows(report, shape)
    table = _table(COLUMNS, [], describe_shape(report, shape))
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        ends = following is not None and following.connections != row.connections
        table.add_row(*cells(row), end_section=ends)
    return table


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE, padding=0)
    for column in columns:
        table.add_column(
            column, min_width=max(map(len, column.split())), justify="left" if column in WORDS else "right"
        )
    for row in rows:
        table.add_row(*row)
    return table
