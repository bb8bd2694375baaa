"""Moving average against exact: how far what training left behind is from what the training set really is.

A moving average remembers the last 1/momentum batches, of a network that was still changing. How far off that is can
not be seen from the averages alone, and may cost accuracy without any error.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_export.pages import Block, Chart, Column, Details, Note, Section, Table, short_label
from model_export.pages.blocks import Tone
from model_export.pages.style import BLUE, INK, VERMILION
from model_export.report.bands import paint_band
from model_export.report.findings import Findings
from model_export.report.layers import Gap, Layer
from model_export.statistics.values import Channels

MOST_ROWS = 16  # layers that have a row of dots each
WORST_ROWS = 10  # of the table that is open where there are more
ROW_HEIGHT = 34
MOST_VECTOR_DOTS = 3000  # beyond, dots are pixels: a page of megabytes shows no more
# A gap is small while no channel is a tenth of its spread beside where it is, or a tenth wider or narrower; and large
# once one is half a spread beside it, or half as wide again (or the inverse).
SMALL_SHIFT, SMALL_RATIO = 0.1, 1.1
LARGE_SHIFT, LARGE_RATIO = 0.5, 1.5


def comparison_section(findings: Findings) -> Section:
    """A verdict, a chart and a table; or a sentence where there are no moving averages to compare."""
    compared = [(layer, layer.gap) for layer in findings.layers if layer.gap is not None]
    if not compared:
        blocks: tuple[Block, ...] = ("No moving averages were given, so there is nothing to compare.",)
    else:
        blocks = (_verdict(compared), *_consequence(findings), _MEANING, _chart(compared), *_tables(compared))
    return Section("Moving average against exact", blocks)


_MEANING = (
    "The shift is (μ of the moving average − μ exact)/√(σ² + ε): at 1, the values that leave the normalisation lie one "
    "standard deviation beside where they should. The ratio is √(σ² + ε) of the moving average by the exact one: at 2, "
    "they are half as wide as they should be. Channels that never varied in training are left out."
)

Compared = list[tuple[Layer, Gap]]


def judge(shift: float, ratio: float) -> tuple[str, Tone]:
    """What the largest |shift| and the ratio farthest from 1, as a number above 1, come to: a word and its tone."""
    if shift <= SMALL_SHIFT and ratio <= SMALL_RATIO:
        return "Close.", "good"
    if shift <= LARGE_SHIFT and ratio <= LARGE_RATIO:
        return "Some way apart.", "mixed"
    return "Far apart.", "bad"


def _verdict(compared: Compared) -> Note:
    layer, gap = max(compared, key=lambda pair: float(np.abs(pair[1].shift).max()))
    shift = gap.worst_shift
    low, high = (float(pick([pick(gap.ratio) for _, gap in compared])) for pick in (np.min, np.max))
    label, tone = judge(shift, max(high, 1 / low))
    return Note(
        f"The largest shift is {shift:.3g} standard deviations, in channel {gap.worst_channel} of {layer.name!r}; the "
        f"spreads are {low:.3g} to {high:.3g} times the exact ones.",
        label=label,
        tone=tone,
    )


def _consequence(findings: Findings) -> tuple[str, ...]:
    moving, scores = findings.moving_average, findings.scores
    if moving is None:
        return ()
    words = (
        f"With the moving averages the network has a test accuracy of {moving.accuracy:.4f}, with exact statistics "
        f"{scores.accuracy:.4f}; it answers {moving.num_other_answers:,} of {scores.num_instances:,} instances "
        "differently. Unless told otherwise, the export freezes the exact ones."
    )
    return (words,)


def _chart(compared: Compared) -> Chart:
    rows = len(compared) <= MOST_ROWS
    shown = (
        "each dot is a channel" if rows else "the median, the middle half and the middle nine tenths of the channels"
    )
    return Chart(
        caption=f"How far the moving averages are from the exact statistics, for each BatchNorm: {shown}. The line is "
        "where both agree.",
        description=f"Shift of the mean and ratio of the spreads for {len(compared)} BatchNorms. The worst and median "
        "channels stand in a table below.",
        paint=lambda figure: _paint_rows(figure, compared) if rows else _paint_bands(figure, compared),
        height=ROW_HEIGHT * len(compared) + 90 if rows else 420,
    )


def _paint_rows(figure: Figure, compared: Compared) -> None:
    shifts, ratios = figure.subplots(1, 2, sharey=True)
    many = sum(len(gap.shift) for _, gap in compared) > MOST_VECTOR_DOTS
    for row, (_, gap) in enumerate(compared):
        for axes, values, colour in ((shifts, gap.shift, BLUE), (ratios, gap.ratio, VERMILION)):
            places = row + _jitter(len(values))
            axes.scatter(values, places, s=14, color=colour, alpha=0.45, linewidths=0, rasterized=many)
    names = [
        short_label(layer.name, instead=f"BatchNorm {number}", longest=22, keep="end")
        for number, (layer, _) in enumerate(compared, start=1)
    ]
    shifts.set_yticks(np.arange(len(compared)), names)
    shifts.set_ylim(len(compared) - 0.4, -0.6)
    _mark_agreement(shifts, ratios, along="x")


def _jitter(num: int) -> Channels:
    """Dots side by side rather than on top of one another, the same way each time."""
    return np.random.default_rng(0).uniform(-0.3, 0.3, size=num)


def _paint_bands(figure: Figure, compared: Compared) -> None:
    shifts, ratios = figure.subplots(2, 1, sharex=True)
    paint_band(shifts, [gap.shift for _, gap in compared], BLUE)
    paint_band(ratios, [gap.ratio for _, gap in compared], VERMILION)
    ratios.set_xlabel("BatchNorm, in the order in which they are applied")
    ratios.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    ratios.set_xlim(1, len(compared))
    _mark_agreement(shifts, ratios, along="y")
    figure.align_ylabels()


def _mark_agreement(shifts: Axes, ratios: Axes, *, along: str) -> None:
    """Name the axis that has the values, and draw the line where moving average and exact agree."""
    for axes, agreed, words in ((shifts, 0, "shift of μ (exact σ)"), (ratios, 1, "ratio of σ (moving / exact)")):
        if along == "x":
            axes.axvline(agreed, color=INK, linewidth=1, zorder=1)
            axes.set_xlabel(words)
            axes.tick_params(axis="y", length=0)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        else:
            axes.axhline(agreed, color=INK, linewidth=1, zorder=3)
            axes.set_ylabel(words)


def _tables(compared: Compared) -> tuple[Block, ...]:
    """All of them; where they are many the worst first, and all behind a click."""
    if len(compared) <= MOST_ROWS:
        return (_table(compared, ""),)
    worst = sorted(compared, key=lambda pair: -float(np.abs(pair[1].shift).max()))[:WORST_ROWS]
    return (
        _table(worst, f"The {WORST_ROWS} BatchNorms with the largest shifts"),
        Details(f"All {len(compared)} BatchNorms", (_table(compared, ""),)),
    )


def _table(compared: Compared, caption: str) -> Table:
    columns = (
        Column("BatchNorm"),
        Column("channels", ",d"),
        Column("median |shift|", ".2e"),
        Column("worst |shift|", ".2e"),
        Column("its channel", "d"),
        Column("least ratio", ".4f"),
        Column("greatest ratio", ".4f"),
    )
    rows = tuple(
        (
            layer.name,
            len(gap.shift),
            float(np.median(np.abs(gap.shift))),
            float(np.abs(gap.shift).max()),
            gap.worst_channel,
            float(gap.ratio.min()),
            float(gap.ratio.max()),
        )
        for layer, gap in compared
    )
    return Table(columns=columns, rows=rows, caption=caption)
