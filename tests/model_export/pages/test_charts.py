"""Claims about charts: many in one page, the same each time, and nobody's settings or words in their way."""

from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from model_export.pages import Chart, can_be_drawn, name_lines, short_label, to_png, to_svg, write_png
from model_export.pages.axes import spread
from tests.model_export.pages.reading import read

# Centres of groups are means of up to 8 places between -10 and 10: some 1e-14 off.
PLACE_TOLERANCE = 1e-9


def lines(*labels: str, scale: str = "linear") -> Chart:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for number, label in enumerate(labels, start=1):
            axes.plot([1, 2, 3], [number, number / 10, number / 1000], "o-", label=label)
        axes.set(yscale=scale, title=labels[0])
        name_lines(axes, height=250)

    return Chart(caption="a caption", description='falls, "quickly" & <surely>', paint=paint)


def shaded() -> Chart:
    return Chart(caption="c", description="d", paint=lambda figure: figure.subplots().imshow(np.eye(3)))


@pytest.mark.parametrize("chart", [lines("a"), shaded()])
def test_charts_of_one_page_share_no_id_and_find_their_own(chart: Chart) -> None:
    first, second = (read(to_svg(chart, name=name)) for name in ("first", "second"))
    assert set(first.values("id")) & set(second.values("id")) == set()
    html = to_svg(chart, name="first")
    referred = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', html))
    assert {a or b for a, b in referred} == set(first.values("id"))
    assert referred


def test_a_chart_is_the_same_each_time() -> None:
    assert to_svg(lines("a", "b"), name="x") == to_svg(lines("a", "b"), name="x")
    assert to_png(lines("a", "b")) == to_png(lines("a", "b"))


def test_a_chart_says_what_it_shows_to_those_who_can_not_see_it() -> None:
    _, attributes = read(to_svg(lines("a"), name="x")).elements[0]
    assert attributes["role"] == "img"
    assert attributes["aria-label"] == 'falls, "quickly" & <surely>'


def test_what_is_drawn_styles_nothing_but_itself() -> None:
    assert "style" not in read(to_svg(lines("a"), name="x")).tags()


@pytest.mark.parametrize("label", ["$x_1$", r"$\bad{", "100 % <b>", "漢字", "a\nb", "\u202e"])
def test_labels_are_words_and_not_mathematics(label: str) -> None:
    """They stay text, so that browsers draw what matplotlib's font lacks; no warning, which would be an error here."""
    assert label.split("\n", maxsplit=1)[0] in read(to_svg(lines(label), name="x")).text
    to_png(lines(label))


def test_powers_of_ten_are_spelled_in_plain_characters() -> None:
    text = read(to_svg(lines("a", scale="log"), name="x")).text.split()
    assert {"10⁻³", "0.01", "0.1", "1"} <= set(text)
    assert "mathdefault" not in " ".join(text)


def test_a_short_logarithmic_axis_names_numbers_between_the_powers() -> None:
    def paint(figure: Figure) -> None:
        figure.subplots().semilogy([1, 2], [0.6, 1.7])

    text = read(to_svg(Chart(caption="", description="", paint=paint), name="x")).text.split()
    assert {"0.6", "1"} <= set(text)


def test_a_reader_s_own_settings_change_nothing_and_are_given_back() -> None:
    expected = to_svg(lines("a"), name="x")
    with mpl.rc_context({"font.size": 40, "axes.facecolor": "black", "svg.fonttype": "path"}):
        before = dict(mpl.rcParams)
        assert to_svg(lines("a"), name="x") == expected
        assert dict(mpl.rcParams) == before


def test_a_png_has_two_pixels_for_each_of_css(tmp_path: Path) -> None:
    write_png(tmp_path / "chart.png", lines("a"))
    assert Image.open(io.BytesIO((tmp_path / "chart.png").read_bytes())).size == (1440, 640)


def test_a_label_that_can_not_be_drawn_is_replaced_and_a_long_one_is_cut() -> None:
    assert [can_be_drawn(text) for text in ("γ·β", "漢字", "a\nb")] == [True, False, False]
    assert short_label("漢字", instead="no. 3") == "no. 3"
    assert short_label("  ", instead="no. 4") == "no. 4"
    assert short_label("a.long.name", instead="", longest=6) == "a.lon…"
    assert short_label("a.long.name", instead="", longest=6, keep="end") == "….name"


@given(st.lists(st.floats(-10, 10), max_size=8), st.floats(0.01, 2))
def test_names_are_moved_apart_and_keep_their_order(places: list[float], gap: float) -> None:
    moved = spread(np.array(places), gap)
    order = np.argsort(places, kind="stable")
    assert (np.diff(moved[order]) >= gap - PLACE_TOLERANCE).all()


def test_names_that_are_apart_stay_where_they_are() -> None:
    np.testing.assert_allclose(spread(np.array([3.0, 0.0, 1.5]), 1.0), [3.0, 0.0, 1.5])


def test_a_line_without_a_point_has_no_name() -> None:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([1, 2], [1, np.nan], label="ends early")
        axes.plot([1, 2], [np.nan, np.nan], label="never begins")
        name_lines(axes, height=250)

    text = read(to_svg(Chart(caption="", description="", paint=paint), name="x")).text
    assert "ends early" in text
    assert "never begins" not in text
