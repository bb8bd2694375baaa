"""Claims about pages: one file that loads nothing, says what it was given, and lets no word become markup."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_export.pages import (
    Block,
    Chart,
    Code,
    Column,
    Details,
    Facts,
    Note,
    Page,
    Section,
    Table,
    render_page,
    write_page,
)
from tests.model_export.pages.reading import read, refers_to_itself_only

ROOT = Path(__file__).parents[3]
# Control characters have no place in HTML; browsers and parsers replace or drop them.
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(lambda text: text == text.strip())


def page(*blocks: Block, title: str = "Title") -> Page:
    return Page(title=title, lead=(), sections=(Section("Heading", blocks),))


def chart(words: str) -> Chart:
    return Chart(caption=words, description=words, paint=lambda figure: figure.subplots().set_title("t"))


def test_a_page_refers_to_nothing_outside_and_forbids_it() -> None:
    seen = read(render_page(page("text", chart("a chart"), Code("python"))))
    assert refers_to_itself_only(seen)
    policies = [a["content"] for _, a in seen.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


@given(WORDS)
@settings(max_examples=60, deadline=None)
def test_no_word_becomes_markup_wherever_it_stands(words: str) -> None:
    table = Table(columns=(Column(words),), rows=((words,),), caption=words)
    blocks = (words, table, Facts(((words, words),)), Note(words, label=words), Code(words), Details(words, (words,)))
    whole = Page(title=words, lead=(words,), sections=(Section(words, blocks),), foot=words)
    seen, plain = read(render_page(whole)), read(render_page(_plain(whole)))
    assert [tag for tag, _ in seen.elements] == [tag for tag, _ in plain.elements]
    assert seen.text.count(words) >= plain.text.count("plain")


def _plain(whole: Page) -> Page:
    """The same page with the word `plain` everywhere."""
    table = Table(columns=(Column("plain"),), rows=(("plain",),), caption="plain")
    facts, note, more = Facts((("plain", "plain"),)), Note("plain", label="plain"), Details("plain", ("plain",))
    section = Section("plain", ("plain", table, facts, note, Code("plain"), more))
    return Page(title="plain", lead=("plain",), sections=(section,) * len(whole.sections), foot="plain")


def test_a_chart_s_own_words_are_escaped() -> None:
    seen = read(render_page(page(chart('<img src="x" onerror="y">'))))
    assert "img" not in seen.tags()
    assert '<img src="x" onerror="y">' in seen.values("aria-label")


def test_numbers_are_spelled_by_their_column_and_what_is_missing_is_a_dash() -> None:
    columns = (Column("class"), Column("share", ".1%"), Column("count", ",d"), Column("loss", ".2e"))
    table = Table(columns=columns, rows=(("a", 0.1234, 12345, 1e-7), ("b", None, 0, float("nan"))))
    html = render_page(page(table))
    rows = read(html).tables[0]
    assert rows == [["class", "share", "count", "loss"], ["a", "12.3 %", "12,345", "1.00e-07"], ["b", "–", "0", "–"]]
    assert html.count('<td class="number">') == 6


def test_a_row_that_does_not_fit_its_table_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 2 cells: expected 1"):
        Table(columns=(Column("a"),), rows=(("x",), ("y", "z")))


def test_a_long_page_has_contents_that_lead_to_its_sections() -> None:
    sections = tuple(Section(name, ()) for name in ("one", "two", "three"))
    seen = read(render_page(Page(title="t", lead=(), sections=sections)))
    links = [target[1:] for target in seen.values("href") if target.startswith("#")]
    assert links == ["section-1", "section-2", "section-3"]
    assert set(links) <= set(seen.values("id"))


def test_no_id_stands_twice() -> None:
    ids = read(render_page(page(chart("a"), chart("b"), Details("c", (chart("d"),))))).values("id")
    assert len(ids) == len(set(ids))


def test_a_page_that_can_not_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(path, page("first"))

    def fail(_: object) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_page(path, page(Chart(caption="", description="", paint=fail)))
    assert "first" in path.read_text("utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_half_a_character_does_not_stop_a_page(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", page("caf\udce9"))
    assert "caf?" in (tmp_path / "page.html").read_text("utf-8")


def test_the_template_travels_with_the_package() -> None:
    """An installed wheel holds what package-data names, and no other file that is not Python."""
    room = ROOT / "model_export"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    named = {path for pattern in patterns["model_export"] for path in room.glob(pattern)}
    needed = {path for path in room.rglob("*") if path.suffix in {".css", ".jinja"}}
    assert needed <= named
    assert needed
