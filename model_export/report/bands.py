"""Many layers in one picture: for each, a few quantiles over its channels, joined from layer to layer into bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from model_export.statistics.values import Channels

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def paint_band(axes: Axes, layers: Sequence[Channels | None], colour: str, *, label: str = "_band") -> None:
    """Paint the median and two bands around it, over 1, 2, … for the layers; None leaves a gap."""
    nothing = np.full(len(QUANTILES), np.nan)
    rows = [nothing if values is None else np.quantile(values, QUANTILES) for values in layers]
    outer_low, low, median, high, outer_high = np.array(rows).T
    depth = np.arange(1, len(layers) + 1)
    axes.fill_between(depth, outer_low, outer_high, color=colour, alpha=0.16, linewidth=0)
    axes.fill_between(depth, low, high, color=colour, alpha=0.3, linewidth=0)
    axes.plot(depth, median, color=colour, linewidth=1.5, label=label)
