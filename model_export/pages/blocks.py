"""What a page is made of, beside charts: tables, lists of facts, notes, code, and parts that open on a click.

A plain string among the blocks is a paragraph. Everything is text until the page escapes it: no block takes HTML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, Union

from model_export.pages.charts import Chart

Cell = str | int | float | None
Tone = Literal["plain", "good", "mixed", "bad"]
ABSENT = "–"


@dataclass(frozen=True)
class Column:
    """A table's column. One with a `form`, a format specification such as `.3f` or `,d`, holds numbers."""

    heading: str
    form: str = ""

    def spell(self, cell: Cell) -> str:
        """The cell as it is shown. None and NaN are a dash."""
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return ABSENT
        return cell if isinstance(cell, str) else format(cell, self.form).replace("%", " %")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns and rows, each row a cell a column; numbers are aligned on the right. `caption` may be empty.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """

    kind: ClassVar[str] = "table"

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells: expected {len(self.columns)}, one a column")


@dataclass(frozen=True)
class Facts:
    """Names and what they are, one below the other: what the page is about, at a glance."""

    kind: ClassVar[str] = "facts"

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Note:
    """A sentence that stands out: a verdict, a warning. `label` goes in front of it, in the tone's colour."""

    kind: ClassVar[str] = "note"

    text: str
    label: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Code:
    """Lines that are to be copied as they are: a command, JSON."""

    kind: ClassVar[str] = "code"

    text: str


@dataclass(frozen=True)
class Details:
    """Blocks behind one line that opens on a click, without a script."""

    kind: ClassVar[str] = "details"

    summary: str
    blocks: tuple[Block, ...]


Block: TypeAlias = Union[str, Chart, Table, Facts, Note, Code, Details]  # noqa: UP007 - Details holds it
