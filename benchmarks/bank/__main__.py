"""`python -m benchmarks.bank`: foldserve beside its peers on the bank; prints tables and writes them as Markdown."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.bank import BANK
from benchmarks.bank.case import Case
from benchmarks.bank.errors import BankError
from benchmarks.bank.report import (
    LEGEND,
    TOOL_COLUMNS,
    Report,
    by_family,
    case_columns,
    case_rows,
    describe_machine,
    failures,
    headline,
    render,
    tool_rows,
)
from benchmarks.bank.run import run_all
from benchmarks.bank.tools import TOOLS, find_tool

RESULT = Path(__file__).parents[1] / "results" / "bank.md"
ALL_TOOLS = ",".join(tool.name for tool in TOOLS)
COMMAND = "python -m benchmarks.bank"


def main(
    tools: Annotated[str, typer.Option(help="which tools, separated by commas")] = ALL_TOOLS,
    only: Annotated[str, typer.Option(help="only cases whose family or name holds this")] = "",
    out: Annotated[Path | None, typer.Option(help="the Markdown file [default: benchmarks/results/bank.md]")] = None,
) -> None:
    """Judge foldserve and its peers on every case of the bank."""
    console = Console()
    try:
        report = run_bank(tuple(name.strip() for name in tools.split(",")), _chosen(only), console)
    except BankError as err:
        Console(stderr=True).print(f"bank: {err}", highlight=False, markup=False)
        raise typer.Exit(1) from err
    show(report, console)
    complete = len(report.cases) == len(BANK) and len(report.tools) == len(TOOLS)
    place = out or (RESULT if complete else None)
    if place is not None:
        place.write_text(render(report), encoding="utf-8")
        console.print(f"written: {place}", highlight=False)


def run_bank(names: tuple[str, ...], cases: tuple[Case, ...], console: Console) -> Report:
    """Run all, and say when each tool is done.

    Raises:
        PeerMissing: a tool is not installed.
    """
    tools = tuple(find_tool(name) for name in names)
    console.print(f"{len(cases)} cases, two variants each, {len(tools)} tools", highlight=False)
    results = run_all(tools, cases, lambda tool: console.print(f"  {tool.name}: done", highlight=False))
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    return Report(date=date, command=COMMAND, tools=tools, cases=cases, results=results)


def show(report: Report, console: Console) -> None:
    """Print the machine, the tables, and what it comes down to."""
    for what, words in describe_machine(report.tools).items():
        console.print(f"{what}: {words}", highlight=False)
    for title, cases in (("Patterns", report.patterns), ("Traps", report.traps)):
        console.print(_cases(report, title, cases))
    console.print(LEGEND, highlight=False)
    for line in failures(report):
        console.print(line, highlight=False, markup=False)
    console.print(_tools(report))
    console.print(headline(report), highlight=False)


def _cases(report: Report, title: str, cases: tuple[Case, ...]) -> Table:
    """A sign for each case and tool, a section for each family."""
    table = _empty_table(title)
    table.add_column("case", no_wrap=True)
    for column in case_columns(report)[2:]:
        table.add_column(column, justify="center")
    for own in by_family(cases).values():
        for name, _, *signs in case_rows(report, own):
            table.add_row(name, *signs)
        table.add_section()
    return table


def _tools(report: Report) -> Table:
    """Counts for each tool."""
    table = _empty_table("Tools")
    for index, column in enumerate(TOOL_COLUMNS):
        table.add_column(column, justify="right" if index else "left", min_width=max(map(len, column.split())))
    for row in tool_rows(report):
        table.add_row(*row)
    return table


def _empty_table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="", box=box.SIMPLE, padding=0)


def _chosen(only: str) -> tuple[Case, ...]:
    cases = tuple(case for case in BANK if only in f"{case.family}: {case.name}")
    if not cases:
        raise typer.BadParameter(f"--only: no case's family or name holds {only!r}")
    return cases


if __name__ == "__main__":
    typer.run(main)
