"""The house style of charts: colours that the colour-blind tell apart, and the settings that matplotlib draws with.

The colours are Okabe and Ito's ("Color Universal Design", 2008) without its yellow, which is too pale for a line on
white. They are named by what they are for, so that the same thing has the same colour in every chart.
"""

from __future__ import annotations

from typing import Any

from cycler import cycler
from matplotlib.colors import LinearSegmentedColormap

BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#AA4A86"  # Okabe and Ito's #CC79A7, darker: thin lines and small text stay legible
SKY = "#56B4E9"
ORANGE = "#E69F00"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE)  # in the order in which lines take them

INK = "#1F2933"
MUTED = "#5B6770"
RULE = "#D5DADF"
GRID = "#ECEFF1"

SHADES = LinearSegmentedColormap.from_list("foldserve", ["#FFFFFF", "#CFE3F1", "#6FB0D8", "#0072B2", "#003F66"])

MEASURED_FONT = "DejaVu Sans"  # matplotlib brings it along: the same layout on every machine

# Lengths are CSS pixels: a chart's inch has 72 of them, and so has matplotlib's point.
SETTINGS: dict[Any, Any] = {
    "font.family": [MEASURED_FONT],
    "font.size": 12,
    "text.color": INK,
    "text.parse_math": False,  # a `$` in a user's label is a dollar
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.prop_cycle": cycler(color=SERIES),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.limits": (-4, 5),
    "grid.color": GRID,
    "grid.linewidth": 1,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "lines.solid_capstyle": "round",
    "patch.linewidth": 0,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text: it can be searched and copied, and the browser has the glyphs
    "svg.hashsalt": "foldserve",
}
