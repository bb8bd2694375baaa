"""A page as a reader that runs nothing sees it: its elements, what they refer to, and its text."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}


@dataclass
class Seen:
    """Elements in order as (tag, attributes), all the text, and the rows of each table."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    tables: list[list[list[str]]] = field(default_factory=list)

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.seen = Seen()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        match tag:
            case "table":
                self.seen.tables.append([])
            case "tr":
                self.seen.tables[-1].append([])
            case "td" | "th":
                self.seen.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.seen.text += data
        if {"td", "th"} & set(self.open):
            self.seen.tables[-1][-1][-1] += data


def read(html: str) -> Seen:
    """Parse a page whose elements are all closed, which is checked."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader.seen


def refers_to_itself_only(seen: Seen) -> bool:
    """Whether nothing in the page names anything outside of it, and nothing in it runs."""
    targets = [value for name in ("src", "href", "xlink:href", "action", "data") for value in seen.values(name)]
    handlers = {name for _, attributes in seen.elements for name in attributes if name.startswith("on")}
    inside = all(target.startswith(("#", "data:")) for target in targets)
    return inside and not handlers and not seen.tags() & {"script", "iframe", "object", "embed", "base", "form"}
