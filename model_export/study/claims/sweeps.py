"""What the claims about initialisation and learning rate share: accuracy over a sweep, as a chart and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_export.pages import Chart, Column, Table, name_lines
from model_export.pages.style import MUTED
from model_export.study.drawing import HEIGHT, NAMES_HEIGHT, arm_colour, arm_words, draw_range, panels
from model_export.study.evidence import Spread
from model_export.study.trials import Outcome, Subject


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A place of the sweep: where, with which rate it was trained, and how it ended."""

    place: float
    rate: float
    runs: tuple[Outcome, ...]
    accuracy: Spread

    @property
    def num_diverged(self) -> int:
        """How many repeats ended in numbers that are not finite."""
        return sum(run.diverged_in is not None for run in self.runs)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Both arms of a network over the same places, and the accuracy from which on it counts as trained."""

    having: tuple[Stop, ...]
    lacking: tuple[Stop, ...]
    trains_from: float

    @property
    def trained_with(self) -> tuple[float, ...]:
        """The places where it trains with BatchNorm, ascending."""
        return tuple(stop.place for stop in self.having if stop.accuracy.median >= self.trains_from)

    @property
    def trained_without(self) -> tuple[float, ...]:
        """Those without."""
        return tuple(stop.place for stop in self.lacking if stop.accuracy.median >= self.trains_from)


def sweep_table(sweeps: Mapping[Subject, Sweep], heading: str, caption: str) -> Table:
    """A row for each place, both arms beside each other."""
    columns = (
        Column("network"),
        Column(heading, "g"),
        Column("with", ".3f"),
        Column("range"),
        Column("trains"),
        Column("without", ".3f"),
        Column("range"),
        Column("trains"),
    )
    rows = tuple(
        (subject.title, having.place, *_cells(having, sweep), *_cells(lacking, sweep))
        for subject, sweep in sweeps.items()
        for having, lacking in zip(sweep.having, sweep.lacking, strict=True)
    )
    return Table(columns=columns, rows=rows, caption=caption)


def sweep_chart(sweeps: Mapping[Subject, Sweep], xlabel: str, caption: str, finding: str) -> Chart:
    """Accuracy over the sweep, a panel a network, a line an arm; the dotted line is where training begins to count."""

    def paint(figure: Figure) -> None:
        titles = [subject.title for subject in sweeps]
        axes_of = panels(figure, titles, xlabel=xlabel, ylabel="test accuracy")
        for axes, (subject, sweep) in zip(axes_of, sweeps.items(), strict=True):
            axes.set(xscale="log", ylim=(0, 1))
            axes.axhline(sweep.trains_from, color=MUTED, linewidth=1, linestyle=":")
            for placement, stops in zip(subject.arms, (sweep.having, sweep.lacking), strict=True):
                _draw(axes, stops, placement)
        for axes in axes_of:
            name_lines(axes, height=NAMES_HEIGHT)

    return Chart(caption=caption, description=finding, paint=paint, height=HEIGHT)


def _draw(axes: Axes, stops: Sequence[Stop], placement: str) -> None:
    accuracies = np.array([[run.test_accuracy for run in stop.runs] for stop in stops]).T
    places = [stop.place for stop in stops]
    colour, label = arm_colour(placement), arm_words(placement)
    draw_range(axes, places, accuracies, colour=colour, label=label, marker="o")


def _cells(stop: Stop, sweep: Sweep) -> tuple[float, str, str]:
    accuracy = stop.accuracy
    diverged = f", {stop.num_diverged} diverged" if stop.num_diverged else ""
    word = "yes" if accuracy.median >= sweep.trains_from else "no"
    return accuracy.median, accuracy.range(".3f"), f"{word}{diverged}"
