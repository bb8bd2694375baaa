"""Which classes are taken for which: a matrix as long as one can be read, and the most confused pairs in words."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from model_export.pages import Block, Chart, Column, Details, Section, Table, short_label
from model_export.pages.style import INK, SHADES
from model_export.report.scores import Confusion, Scores, most_confused

MOST_CLASSES = 30  # beyond, the cells are too small for numbers
MOST_PAIRS = 10  # beside a matrix
MOST_PAIRS_ALONE = 20  # without one
WIDEST_UPRIGHT = 3  # characters: longer names below the columns are turned
GAMMA = 0.5  # shares are coloured by their root: 1 % is seen
WHITE_ON_FROM = 0.45  # the share from which numbers are white


def confusion_section(scores: Scores, labels: tuple[str, ...]) -> Section:
    """The matrix if it can be read, the pairs in words, and the counts."""
    if len(labels) > MOST_CLASSES:
        return Section("Confusion", _pairs(scores, labels, most=MOST_PAIRS_ALONE))
    blocks = (_chart(scores, labels), *_pairs(scores, labels, most=MOST_PAIRS), _counts(scores, labels))
    return Section("Confusion matrix", blocks)


def axis_labels(labels: tuple[str, ...]) -> list[str]:
    """The names as they fit on an axis; where one can not be drawn, its number in the table of classes."""
    return [short_label(label, instead=f"no. {number}") for number, label in enumerate(labels)]


def _pairs(scores: Scores, labels: tuple[str, ...], *, most: int) -> tuple[Block, ...]:
    pairs = most_confused(scores, most=most)
    if not pairs:
        return (f"No instance was put into a wrong class, of {scores.num_instances:,}.",)
    columns = (Column("class"), Column("taken for"), Column("instances", ",d"), Column("of the class", ".1%"))
    rows = tuple((labels[pair.true], labels[pair.predicted], pair.count, pair.share) for pair in pairs)
    caption = "The most confused pairs" if most == MOST_PAIRS else f"The most confused pairs, of {len(labels)} classes"
    return _in_words(pairs[0], scores, labels), Table(columns=columns, rows=rows, caption=caption)


def _in_words(pair: Confusion, scores: Scores, labels: tuple[str, ...]) -> str:
    num_wrong = scores.num_instances - scores.num_right
    times = "once" if pair.count == 1 else f"{pair.count:,} times"
    return (
        f"{num_wrong:,} of {scores.num_instances:,} instances were put into a wrong class. Most often “"
        f"{labels[pair.true]}” was taken for “{labels[pair.predicted]}”: {times}, {100 * pair.share:.1f} % of its "
        f"{scores.support[pair.true]:,} instances."
    )


def _chart(scores: Scores, labels: tuple[str, ...]) -> Chart:
    side = min(max(34 * len(labels), 220), 560)
    num_wrong = scores.num_instances - scores.num_right
    return Chart(
        caption="How many instances of the class of the row were taken for the class of the column; the colour is "
        "their share of the row. What is right lies on the diagonal.",
        description=f"Confusion matrix of {len(labels)} classes: {scores.num_right} instances on the diagonal, "
        f"{num_wrong} beside it. The counts stand in a table below.",
        paint=lambda figure: _paint(figure, scores, labels),
        width=min(720, side + 120 + 7 * max(map(len, axis_labels(labels)))),
        height=side + 70,
    )


def _paint(figure: Figure, scores: Scores, labels: tuple[str, ...]) -> None:
    axes, names = figure.subplots(), axis_labels(labels)
    shares = scores.confusion / np.maximum(scores.support, 1)[:, None]
    norm = PowerNorm(GAMMA, vmin=0, vmax=1)
    mesh = axes.pcolormesh(shares, cmap=SHADES, norm=norm, edgecolors="#ECEFF1", linewidth=1)
    size = 12 if len(labels) <= 14 else 220 / len(labels)
    for (row, column), count in np.ndenumerate(scores.confusion):
        if count:
            colour = "white" if shares[row, column] > WHITE_ON_FROM else INK
            axes.text(
                column + 0.5, row + 0.5, _spell(int(count)), ha="center", va="center", fontsize=size, color=colour
            )
    ticks, turned = np.arange(len(labels)) + 0.5, max(map(len, names)) > WIDEST_UPRIGHT
    axes.set_xticks(ticks, names, rotation=90 if turned else 0)
    axes.set_yticks(ticks, names)
    axes.set(xlabel="predicted class", ylabel="true class", aspect="equal")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.6, aspect=24, ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0 %", "1 %", "10 %", "25 %", "50 %", "100 %"])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def _spell(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _counts(scores: Scores, labels: tuple[str, ...]) -> Details:
    columns = (Column("true \\ predicted"), *(Column(label, "d") for label in labels))
    rows = tuple((label, *row) for label, row in zip(labels, scores.confusion.tolist(), strict=True))
    return Details("The counts as a table", (Table(columns=columns, rows=rows),))
