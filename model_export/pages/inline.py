"""matplotlib's SVG file as an element of an HTML page: several of them in one page do not meddle with one another.

A file's ids are its own, a page's are shared: two charts that both call a clipping path `p1` clip with the first one's.
So only ids that something refers to stay, under the chart's name. The file's style sheet, which in a page would style
everything, becomes attributes; namespaces, which HTML knows already, and metadata go.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET  # the SVG is matplotlib's, nobody else wrote it

from model_export.pages.style import MEASURED_FONT

REFERENCE = re.compile(r"url\(#([^)]+)\)")
PAGE_FONT = "system-ui, sans-serif"  # narrower than the measured font: labels stay in their places
SMALLEST_WIDTH = 560  # CSS pixels: below, the text could not be read, so a narrow screen scrolls the chart sideways
DROPPED = {"metadata", "style"}


def inline_svg(svg: str, *, name: str, description: str) -> str:
    """Turn the SVG file's text into an `<svg>` element with ids that begin with `name` and a `description` read out."""
    root = ET.fromstring(svg)  # noqa: S314
    _drop_parts_of_a_file(root)
    referred = {target for element in root.iter() for target in _targets(element)}
    for element in root.iter():
        _settle(element, name, referred)
    width, height = (root.attrib.pop(side).removesuffix("pt") for side in ("width", "height"))
    least = min(float(width), SMALLEST_WIDTH)
    root.attrib.update({"width": width, "height": height, "style": f"min-width: {least:g}px; max-width: {width}px"})
    root.attrib.update({"role": "img", "aria-label": description})
    root.attrib.update({"stroke-linejoin": "round", "stroke-linecap": "butt"})
    return ET.tostring(root, encoding="unicode")


def _drop_parts_of_a_file(root: ET.Element) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in DROPPED:
                parent.remove(child)


def _targets(element: ET.Element) -> list[str]:
    """The ids that an element refers to."""
    values = element.attrib.items()
    linked = [value[1:] for key, value in values if _local(key) == "href" and value.startswith("#")]
    return linked + [target for _, value in values for target in REFERENCE.findall(value)]


def _settle(element: ET.Element, name: str, referred: set[str]) -> None:
    """Give the element names without namespaces, ids of this chart, and the page's font."""
    element.tag = _local(element.tag)
    attributes = {_local(key): value for key, value in element.attrib.items()}
    if attributes.get("id") not in referred:
        attributes.pop("id", None)
    else:
        attributes["id"] = f"{name}-{attributes['id']}"
    if attributes.get("href", "").startswith("#"):
        attributes["href"] = f"#{name}-{attributes['href'][1:]}"
    renamed = {key: REFERENCE.sub(rf"url(#{name}-\1)", value) for key, value in attributes.items()}
    if "style" in renamed:
        renamed["style"] = renamed["style"].replace(f"'{MEASURED_FONT}'", PAGE_FONT)
    element.attrib.clear()
    element.attrib.update(renamed)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
