"""A page: one HTML file that needs nothing else, neither network nor scripts, and is safe with anybody's words in it.

Everything that is said goes through Jinja2's escaping; only the charts, which are made here, are markup. A Content
Security Policy in the page forbids the browser to load anything, whatever the page holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from model_export.pages.blocks import Block
from model_export.pages.charts import Chart, to_svg
from model_export.pages.files import write_whole

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Section:
    """A heading, unique on its page, and what stands below it, in order."""

    heading: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """What one HTML file says. `lead` stands between the title and the contents, `foot` in small print at the end."""

    title: str
    lead: tuple[Block, ...]
    sections: tuple[Section, ...]
    foot: str = ""


def render_page(page: Page) -> str:
    """The page as HTML; the same page gives the same text."""
    environment = Environment(
        loader=PackageLoader("model_export.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    names = _names()
    environment.filters["svg"] = lambda chart: Markup(to_svg(chart, name=next(names)))  # noqa: S704 - we drew it
    environment.tests["chart"] = lambda block: isinstance(block, Chart)
    return environment.get_template(TEMPLATE).render(page=page)


def write_page(path: Path, page: Page) -> None:
    """Write the page to `path`, whole or not at all.

    Raises:
        OSError: the folder is not there, or can not be written to.
    """
    # A name from a file system may hold half a character, which UTF-8 has not: it becomes a question mark.
    write_whole(path, render_page(page).encode(errors="replace"))


def _names() -> Iterator[str]:
    """A name for each chart of a page."""
    return (f"chart{number}" for number in count(1))
