"""Precision, recall and F1 of each class: which classes the accuracy is made of, and which it hides."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from model_export.pages import Block, Chart, Column, Details, Section, Table
from model_export.pages.style import BLUE, RULE, VERMILION
from model_export.report.confusion import axis_labels
from model_export.report.scores import Scores

MOST_ROWS = 30  # classes that have a row each, in a chart and in a table that is open
WORST_ROWS = 15  # of the table that is open where there are more
ROW_HEIGHT = 22


def classes_section(scores: Scores, labels: tuple[str, ...]) -> Section:
    """A sentence on the averages, a chart, and the table: the lowest F1 first where there are many classes."""
    return Section("Scores of each class", (_averages(scores), *_chart(scores, labels), *_tables(scores, labels)))


def _averages(scores: Scores) -> str:
    """Macro averages, over the classes for which there is a value."""
    known = {name: values[~np.isnan(values)] for name, values in _by_name(scores).items()}
    words = ", ".join(f"{name} {values.mean():.4f}" for name, values in known.items() if len(values))
    num_absent = int((scores.support == 0).sum())
    who = "One class has" if num_absent == 1 else f"{num_absent} classes have"
    absent = f" {who} no instance in the held-out split." if num_absent else ""
    return f"Averaged over the classes, each counting the same: {words}.{absent} A dash stands where there is no value."


def _by_name(scores: Scores) -> dict[str, NDArray[np.float64]]:
    return {"precision": scores.precision, "recall": scores.recall, "F1": scores.f1}


def _worst_first(scores: Scores) -> NDArray[np.intp]:
    """The order of classes by F1; those without come last."""
    return np.argsort(scores.f1, kind="stable")


def _chart(scores: Scores, labels: tuple[str, ...]) -> tuple[Chart, ...]:
    known = np.flatnonzero(~np.isnan(scores.f1))
    worst = known[scores.f1[known].argmin()]
    description = f"{labels[worst]} has the lowest F1, {scores.f1[worst]:.4f}. All values stand in a table below."
    if len(labels) > MOST_ROWS:
        return (
            Chart(
                caption=f"How many of the {len(known)} classes have which F1.",
                description=description,
                paint=lambda figure: _paint_histogram(figure, scores.f1[known]),
                height=240,
            ),
        )
    return (
        Chart(
            caption="Precision (of those taken for the class, how many are of it) and recall (of those of the class, "
            "how many were found); the lowest F1 on top.",
            description=description,
            paint=lambda figure: _paint_rows(figure, scores, labels),
            height=ROW_HEIGHT * len(known) + 90,
        ),
    )


def _paint_histogram(figure: Figure, f1: NDArray[np.float64]) -> None:
    axes = figure.subplots()
    axes.hist(f1, bins=np.linspace(0, 1, 41).tolist(), color=BLUE)
    axes.set(xlabel="F1 of a class", ylabel="classes", xlim=(0, 1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _paint_rows(figure: Figure, scores: Scores, labels: tuple[str, ...]) -> None:
    axes, names = figure.subplots(), axis_labels(labels)
    order = [number for number in _worst_first(scores) if not np.isnan(scores.f1[number])]
    places = np.arange(len(order))
    precision, recall = scores.precision[order], scores.recall[order]
    axes.hlines(places, np.fmin(precision, recall), np.fmax(precision, recall), color=RULE, linewidth=3, zorder=1)
    axes.scatter(precision, places, s=36, color=BLUE, label="precision", zorder=3)
    axes.scatter(
        recall,
        places,
        s=80,
        marker="D",
        label="recall",
        zorder=2,
        facecolors="none",
        edgecolors=VERMILION,
        linewidth=1.8,
    )
    axes.set_yticks(places, [names[number] for number in order])
    axes.set(ylim=(len(order) - 0.4, -0.6), xlabel="share")
    axes.margins(x=0.04)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper right", ncols=2)


def _tables(scores: Scores, labels: tuple[str, ...]) -> tuple[Block, ...]:
    if len(labels) <= MOST_ROWS:
        return (_table(scores, labels, np.arange(len(labels)), ""),)
    worst = _worst_first(scores)[:WORST_ROWS]
    return (
        _table(scores, labels, worst, f"The {WORST_ROWS} classes with the lowest F1"),
        Details(f"All {len(labels)} classes", (_table(scores, labels, np.arange(len(labels)), ""),)),
    )


def _table(scores: Scores, labels: tuple[str, ...], order: NDArray[np.intp], caption: str) -> Table:
    columns = (
        Column("no.", "d"),
        Column("class"),
        Column("precision", ".4f"),
        Column("recall", ".4f"),
        Column("F1", ".4f"),
        Column("instances", ",d"),
    )
    rows = tuple(
        (int(k), labels[k], *(float(values[k]) for values in _by_name(scores).values()), int(scores.support[k]))
        for k in order
    )
    return Table(columns=columns, rows=rows, caption=caption)
