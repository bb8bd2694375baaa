"""Rows of text/csv to instances: a line for each, with a header only where its cells are names of columns.

Numbers are written as in JSON, or as `+1`, `.5` and `1.`; a feature with categories takes its words. Empty lines are
passed over. Without a header the columns stand in the model's order.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import msgspec
import numpy as np

from service.bundle import Signature
from service.errors import BodyMalformed, RequestError
from service.number_text import plan_number_list
from service.protocols.dataframes import Dataframes, permute
from service.protocols.table_rows import TableRows, split_packed

INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
PLAIN = b"0123456789+-.eE, \t\r\n"  # a text of these alone is rows of numbers, whatever else may be wrong with it

# A row's line, counted from 1, and its cells as values.
Line = tuple[int, list[Any]]


class CsvRows:
    """Reads text/csv for one signature."""

    def __init__(self, signature: Signature) -> None:
        self._rows = TableRows(signature)
        self._dataframes = Dataframes(signature)
        self._words = {word for feature in signature.features for word in feature.categories}
        self._read_list = plan_number_list(np.dtype(signature.input.dtype))
        self._has_features = bool(signature.features)

    def read(self, body: bytes) -> list[bytes]:
        """Turn the body into instances.

        Raises:
            BodyMalformed: it is no CSV in UTF-8, or has no rows.
            InstanceInvalid: a row does not fit the model; the message names line and column.
        """
        return self.try_read(body) or self._read_thoroughly(body)

    def try_read(self, body: bytes) -> list[bytes] | None:
        """Read rows of nothing but numbers, as JSON writes them; None for all else."""
        if body.translate(None, PLAIN) or self._words:
            return None
        lines = body.strip().split(b"\n")
        text = b"[[" + b"],[".join(lines) + b"]]"
        packed = self._read_list(text, (len(lines), self._rows.num_columns)) if self._read_list else None
        if packed is not None:
            return split_packed(packed, len(lines))
        try:
            return self._rows.pack(msgspec.json.decode(text), str, _name_cell)
        except (msgspec.MsgspecError, RequestError):
            return None

    def _read_thoroughly(self, body: bytes) -> list[bytes]:
        lines = _split(_decode(body))
        names = self._take_header(lines)
        rows = [(number, [_read_cell(cell) for cell in cells]) for number, cells in lines]
        if not rows:
            raise BodyMalformed("the body has no rows", expected="one line for each instance", got="none")
        order = list(range(self._rows.num_columns)) if names is None else self._dataframes.order(names, "the header")
        return self._pack(rows, order)

    def _take_header(self, lines: list[Line]) -> list[str] | None:
        """Take the first line away if a cell of it is a column's name, and nothing that could be a value."""
        if not lines or not self._has_features:
            return None
        cells = [cell.strip() for cell in lines[0][1]]
        if any(cell in self._rows.places and cell not in self._words and not NUMBER.fullmatch(cell) for cell in cells):
            del lines[0]
            return cells
        return None

    def _pack(self, rows: list[Line], order: list[int]) -> list[bytes]:
        def locate_row(row: int) -> str:
            return f"line {rows[row][0]}"

        def locate(row: int, column: int) -> str:
            return f"line {rows[row][0]}, column {order[column] + 1}"

        return self._rows.pack([permute(cells, order) for _, cells in rows], locate_row, locate)


def _decode(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise BodyMalformed(f"the body is not UTF-8: byte {err.start} fits nowhere", expected="CSV in UTF-8") from err


def _split(text: str) -> list[Line]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as err:
        raise BodyMalformed(f"the body is not CSV: {err}, in line {reader.line_num}", expected="CSV") from err


def _read_cell(cell: str) -> Any:
    """Read a number where the cell is one; else it is a word."""
    text = cell.strip()
    if INTEGER.fullmatch(text):
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else text


def _name_cell(row: int, column: int) -> str:
    return f"{row}, {column}"
