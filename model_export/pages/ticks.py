"""Words on the axes: powers of ten spelled in plain characters, and whether the measured font can spell a label."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import LogFormatter

from model_export.pages.style import MEASURED_FONT

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class PowersOfTen(LogFormatter):
    """Ticks of a logarithmic axis: 0.01, 0.1, 1, 10, 100, and beyond these 10³ and the like.

    Which ticks are named stays matplotlib's choice: those between the powers only where the axis has few powers.
    """

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The tick at `x`, or nothing."""
        if not super().__call__(x, pos):
            return ""
        exponent = math.log10(abs(x)) if x else 0.0
        if abs(exponent) > 2 and math.isclose(exponent, round(exponent), abs_tol=1e-9):
            return f"{'-' if x < 0 else ''}10{str(round(exponent)).translate(SUPERSCRIPTS)}"
        return f"{x:g}"


def can_be_drawn(text: str) -> bool:
    """Whether the font that charts are measured with has every character of `text`, all on one line."""
    return text.isprintable() and all(ord(character) in _characters() for character in text)


@cache
def _characters() -> frozenset[int]:
    """The code points of the measured font."""
    return frozenset(get_font(findfont(FontProperties(family=[MEASURED_FONT]))).get_charmap())


def short_label(text: str, *, instead: str, longest: int = 16, keep: Literal["start", "end"] = "start") -> str:
    """`text` as it fits on an axis: cut to `longest` characters, or `instead` of it where charts can not spell it."""
    if not text.strip() or not can_be_drawn(text):
        return instead
    if len(text) <= longest:
        return text
    return f"{text[: longest - 1]}…" if keep == "start" else f"…{text[1 - longest :]}"
