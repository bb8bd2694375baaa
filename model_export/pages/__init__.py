"""Pages: how foldserve shows what it measured, as one HTML file with charts that opens without a network.

A `Page` has `Section`s, a section has blocks: paragraphs (strings), `Chart`, `Table`, `Facts`, `Note`, `Code` and
`Details`. They are values; `write_page` draws the charts and writes the file.
"""

from __future__ import annotations

from model_export.pages.axes import name_lines
from model_export.pages.blocks import Block, Cell, Code, Column, Details, Facts, Note, Table
from model_export.pages.charts import Chart, to_png, to_svg, write_png
from model_export.pages.page import Page, Section, render_page, write_page
from model_export.pages.ticks import can_be_drawn, short_label

__all__ = [
    "Block",
    "Cell",
    "Chart",
    "Code",
    "Column",
    "Details",
    "Facts",
    "Note",
    "Page",
    "Section",
    "Table",
    "can_be_drawn",
    "name_lines",
    "render_page",
    "short_label",
    "to_png",
    "to_svg",
    "write_page",
    "write_png",
]
