"""A progress bar for measuring statistics: the wave, and the batches of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model_export.statistics import Progress as Step
from model_export.statistics import Tell


@contextmanager
def measuring_bar(console: Console, *, shown: bool) -> Iterator[Tell | None]:
    """Show how far a measurement is while the block runs, and nothing afterwards; None where nothing is to be shown."""
    if not shown:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        waves, batches = bar.add_task("waves"), bar.add_task("batches")

        def tell(step: Step) -> None:
            bar.update(waves, completed=step.wave - 1 + step.batch // step.num_batches, total=step.num_waves)
            bar.update(batches, completed=step.batch, total=step.num_batches)

        yield tell
