"""A chart: a caption, words for those who can not see it, and a function that paints a matplotlib figure when asked.

The figure is made, painted and rendered within the house style and thrown away: no pyplot, so no global state and no
window. The same chart becomes SVG for a page and PNG for a README, byte for byte the same each time.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from model_export.pages.files import write_whole
from model_export.pages.inline import inline_svg
from model_export.pages.style import SETTINGS
from model_export.pages.ticks import PowersOfTen

PIXELS_PER_INCH = 72
NAMED_BETWEEN_POWERS = (1.5, 0.5)  # decades: on a shorter axis 2, 3, … are named too, on the shortest all
PNG_SCALE = 2  # pixels of the file for a CSS pixel: sharp on the screens of today

Painter = Callable[[Figure], object]  # what it returns is not looked at


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn, and what is said about it.

    Attributes:
        caption: a sentence or two below the chart: what it shows. May be empty.
        description: what a screen reader says in its place: the finding, in words.
        paint: paints an empty figure; it is called within the house style, each time the chart is rendered.
        width: CSS pixels; a page's column is 720 wide.
        height: CSS pixels.
    """

    caption: str
    description: str
    paint: Painter
    width: int = 720
    height: int = 320


def to_svg(chart: Chart, *, name: str) -> str:
    """Render as an `<svg>` element that can stand in HTML; `name` starts its ids and is unique on the page."""
    with _painted(chart) as figure:
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return inline_svg(stream.getvalue(), name=name, description=chart.description)


def to_png(chart: Chart) -> bytes:
    """Render as a PNG of twice the chart's size in pixels."""
    with _painted(chart) as figure:
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=PIXELS_PER_INCH * PNG_SCALE, metadata={"Software": None})
    return stream.getvalue()


def write_png(path: Path, chart: Chart) -> None:
    """Write the chart to `path` as PNG, whole or not at all."""
    write_whole(path, to_png(chart))


@contextmanager
def _painted(chart: Chart) -> Iterator[Figure]:
    """The chart's figure, in a context in which it can be saved.

    Glyphs that the measured font lacks are no reason to complain: in SVG the browser has them.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # a user's own matplotlibrc does not change our pages
        mpl.rcParams.update(SETTINGS)
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
        size = (chart.width / PIXELS_PER_INCH, chart.height / PIXELS_PER_INCH)
        figure = Figure(figsize=size, dpi=PIXELS_PER_INCH, layout="constrained")
        chart.paint(figure)
        for axes in figure.axes:
            _spell_powers(axes)
        yield figure


def _spell_powers(axes: Axes) -> None:
    """Give logarithmic axes ticks without mathtext, which the house style does not parse."""
    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(axis.get_major_formatter(), LogFormatter):
            axis.set_major_formatter(PowersOfTen())
            axis.set_minor_formatter(PowersOfTen(minor_thresholds=NAMED_BETWEEN_POWERS))
