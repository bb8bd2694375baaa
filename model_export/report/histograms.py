"""Small histograms in rows: a BatchNorm a row, γ, β, μ and σ side by side, each from its least to its greatest value.

They are drawn into one pair of axes that counts CSS pixels. An axes object for each of them, with ticks that fit, takes
matplotlib a fifth of a second a row; and where a histogram begins and ends says more than ticks do.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_export.pages import short_label
from model_export.pages.charts import PIXELS_PER_INCH
from model_export.pages.style import BLUE, GREEN, INK, MUTED, PURPLE, RULE, VERMILION
from model_export.report.layers import Layer
from model_export.statistics.values import Channels

COLOURS = {"γ": BLUE, "β": VERMILION, "μ": GREEN, "σ": PURPLE}
MEANINGS = {"γ": "γ, scale", "β": "β, offset", "μ": "μ, mean", "σ": "σ, spread"}
NUM_BARS = 30
CONSTANT = 1e-4  # of the largest value: channels that differ by less stand in one bar

# CSS pixels
HEADING, ROW, BARS, NAME, GAP = 28, 92, 60, 128, 24


def height_of(num_rows: int) -> int:
    """How high a chart with so many rows is."""
    return HEADING + ROW * num_rows


def paint_histograms(figure: Figure, layers: tuple[Layer, ...]) -> None:
    """Paint a row for each layer; one alone has no name, for it stands under its own heading."""
    axes, width = _pixels(figure)
    left = NAME if len(layers) > 1 else 0
    column = (width - left - GAP * (len(COLOURS) - 1)) / len(COLOURS)
    places = {letter: left + (column + GAP) * number for number, letter in enumerate(COLOURS)}
    for letter, x in places.items():
        axes.text(x, 12, MEANINGS[letter], va="center", weight="bold")
    for number, layer in enumerate(layers):
        floor = HEADING + ROW * number + BARS
        if left:
            _name(axes, layer, number, floor)
        for letter, values in layer.quantities.items():
            _paint_one(axes, values, COLOURS[letter], corner=(places[letter], floor), width=column)


def _pixels(figure: Figure) -> tuple[Axes, float]:
    """Axes without a frame whose coordinates are the figure's pixels, from the top left; and how many to the right."""
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches() * PIXELS_PER_INCH
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    return axes, float(width)


def _name(axes: Axes, layer: Layer, number: int, floor: float) -> None:
    name = short_label(layer.name, instead=f"BatchNorm {number + 1}", longest=15, keep="end")
    axes.text(0, floor - 30, name, va="center", color=INK)
    axes.text(0, floor - 13, f"{len(layer.mean):,} channels", va="center", color=MUTED, size=11)


def _paint_one(axes: Axes, values: Channels | None, colour: str, *, corner: tuple[float, float], width: float) -> None:
    """One histogram, its lower left at `corner`; the word none for a BatchNorm without γ and β."""
    x, floor = corner
    if values is None:
        axes.text(x + width / 2, floor - BARS / 2, "none", ha="center", va="center", color=MUTED, size=11)
        return
    edges = edges_of(values)
    counts, _ = np.histogram(values, bins=edges)
    steps = x + (edges - edges[0]) / (edges[-1] - edges[0]) * width
    if edges[0] < 0 < edges[-1]:
        zero = float(np.interp(0, edges, steps))
        axes.plot([zero, zero], [floor, floor - BARS], color="#B8C0C6", linewidth=1, zorder=0)
    axes.stairs(floor - BARS * counts / counts.max(), steps, baseline=floor, fill=True, color=colour)
    axes.plot([x, x + width], [floor, floor], color=RULE, linewidth=1)
    _label_ends(axes, values, x, floor + 11, width)


def _label_ends(axes: Axes, values: Channels, x: float, y: float, width: float) -> None:
    """The least and the greatest value; where they are about the same, that one value below its bar."""
    low, high = float(values.min()), float(values.max())
    ends = {"center": high} if _about_equal(low, high) else {"left": low, "right": high}
    for side, value in ends.items():
        place = x + width * {"left": 0.0, "center": 0.5, "right": 1.0}[side]
        text = f"{value:.3g}".replace("-", "−")
        axes.text(place, y, text, ha=side, va="center", color=MUTED, size=11)


def edges_of(values: Channels) -> Channels:
    """The edges of the bars: from the least to the greatest value, or around the only one."""
    low, high = float(values.min()), float(values.max())
    if _about_equal(low, high):
        middle, half = (low + high) / 2, max(abs(low), abs(high)) / 2 or 0.5
        return np.linspace(middle - half, middle + half, NUM_BARS + 2)  # an odd number of bars: one in the middle
    return np.linspace(low, high, NUM_BARS + 1)


def _about_equal(low: float, high: float) -> bool:
    return high - low <= CONSTANT * max(abs(low), abs(high))
