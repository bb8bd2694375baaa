"""`diff A.onnx B.onnx`: names the first tensor where two models part, and shows both sides of it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model_export.fold.check import Difference
from model_export.fold.diff import ModelDiff, Parting, diff


def run_diff(first: Path, second: Path, console: Console) -> bool:
    """Show where two models part; whether they do is the answer.

    Raises:
        FoldInvalid: a file is no model, one does not run here, or there is nothing to compare.
    """
    found = diff(first, second)
    show_diff(found, console)
    return found.parting is not None


def show_diff(found: ModelDiff, console: Console) -> None:
    """How much could be compared, how far that is alike, and where it ends."""
    only_in = f"{found.num_only_in_first} only in the first, {found.num_only_in_second} only in the second"
    heading = "before it" if found.parting else "alike"
    for line in (
        f"tensors   {found.num_in_both} in both, {only_in}",
        f"{heading:10}{_describe_largest(found.largest)}",
    ):
        console.print(f"  {line}", soft_wrap=True, markup=False)
    if found.parting is None:
        console.print("[bold]They answer alike[/]: no tensor differs by more than rounding")
    else:
        _show_parting(found.parting, console)
    if found.parting is not None and found.outputs_agree:
        console.print(
            "  outputs   agree all the same: what differs does not reach them, or the name is another tensor's there",
            soft_wrap=True,
        )


def _describe_largest(largest: Difference | None) -> str:
    if largest is None:
        return "no tensor was compared"
    return f"largest difference {_describe(largest)} at {largest.output}"


def _describe(difference: Difference) -> str:
    return f"{difference.relative:.1e} = {difference.in_noise_floors:.3g} noise floors"


def _show_parting(parting: Parting, console: Console) -> None:
    console.print(f"[bold]They part[/] at {escape(parting.tensor)}, by {_describe(parting.difference)}", soft_wrap=True)
    table = Table("", "first", "second")
    table.add_row("made by", escape(parting.first_node), escape(parting.second_node))
    table.add_row("shape", escape(str(list(parting.first_shape))), escape(str(list(parting.second_shape))))
    if parting.worst is not None:
        values = (f"{value:.6g}" for value in (parting.worst.first_value, parting.worst.second_value))
        table.add_row(f"channel {parting.worst.channel}", *values)
    console.print(table)
