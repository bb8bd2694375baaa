"""Names beside lines: a reader finds what a line is at its end, without going to a legend and back."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

LINE_HEIGHT = 15.0  # CSS pixels between two names


def name_lines(axes: Axes, *, height: float) -> None:
    """Write each line's label to the right of its last finite point, in its colour, moved apart where they would meet.

    Lines without a label (or with one that begins with `_`) get none. Call it when all is drawn and the limits of the
    axes are as they shall be.

    Args:
        axes: the axes that hold the lines.
        height: what the axes are high, in CSS pixels, about: the chart's height less title and axis label.
    """
    named = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    ended = [(line, end) for line in named if (end := _end(line)) is not None]
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = np.array([to_axes.transform(end)[1] for _, end in ended])
    for (line, _), place in zip(ended, spread(ends, LINE_HEIGHT / height), strict=True):
        axes.annotate(
            str(line.get_label()),
            xy=(1, float(place)),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            color=line.get_color(),
            va="center",
            annotation_clip=False,
        )


def spread(places: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Move places apart, each as little as needed, so that any two are `gap` apart and their order stays."""
    order = np.argsort(places, kind="stable")
    groups: list[tuple[float, int]] = []  # (centre, how many names)
    for place in places[order]:
        groups.append((float(place), 1))
        while len(groups) > 1 and _meet(groups[-2], groups[-1], gap):
            (low, num_low), (high, num_high) = groups[-2:]
            num = num_low + num_high
            groups[-2:] = [((low * num_low + high * num_high) / num, num)]
    moved = [centre + gap * (index - (num - 1) / 2) for centre, num in groups for index in range(num)]
    result = np.empty(len(places))
    result[order] = moved
    return result


def _meet(low: tuple[float, int], high: tuple[float, int], gap: float) -> bool:
    return high[0] - low[0] < gap * (low[1] + high[1]) / 2


def _end(line: Line2D) -> tuple[float, float] | None:
    """The last point of a line that can be drawn."""
    points = np.column_stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])
    finite = points[np.isfinite(points).all(axis=1)]
    return (float(finite[-1][0]), float(finite[-1][1])) if len(finite) else None
