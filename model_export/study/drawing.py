"""How charts of the study are drawn: an arm's colour, a line with the range of its repeats, one panel a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model_export.pages.style import BLUE, VERMILION
from model_export.study.trials import WITHOUT

WITH_WORDS: Final = "with"
WITHOUT_WORDS: Final = "without"
HEIGHT: Final = 320
NAMES_HEIGHT: Final = 230  # of the axes in a chart of that height, about


def arm_words(placement: str) -> str:
    """How an arm is called in charts and tables."""
    return WITHOUT_WORDS if placement == WITHOUT else WITH_WORDS


def arm_colour(placement: str) -> str:
    """The same in every chart."""
    return VERMILION if placement == WITHOUT else BLUE


def panels(figure: Figure, titles: Sequence[str], *, xlabel: str, ylabel: str) -> list[Axes]:
    """Axes side by side that share their scale upwards."""
    grid = figure.subplots(1, len(titles), sharey=True, squeeze=False)
    made: list[Axes] = list(grid[0])
    for axes, title in zip(made, titles, strict=True):
        axes.set_title(title)
        axes.set_xlabel(xlabel)
    made[0].set_ylabel(ylabel)
    return made


def draw_range(  # noqa: PLR0913  # where, what, and how it looks
    axes: Axes,
    places: Sequence[float],
    repeats: NDArray[np.float64],
    *,
    colour: str,
    label: str,
    marker: str = "",
) -> None:
    """The median of `repeats` [repeats, places] as a line, their range as a band. NaN is left out."""
    axes.fill_between(places, repeats.min(axis=0), repeats.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.plot(places, np.median(repeats, axis=0), color=colour, label=label, marker=marker)
