"""Rows of text/csv to instances: a line for each, with a header only where its cells are names of columns.

Numbers are written as in JSON, or as `+1`, `.5` and `1.`; a feature with categories takes its words. Empty lines are
passed over. Without a header the columns stand in the model's order. What is no list of plain numbers is read in blocks
of lines, column by column.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from service.bundle import Signature
from service.errors import BodyMalformed, RequestInvalid
from service.number_text import plan_number_list
from service.protocols.dataframes import Dataframes, permute
from service.protocols.table_rows import TableRows, split_packed

INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
PLAIN = b"0123456789+-.eE, \t\r\n"  # a text of these alone is rows of numbers, whatever else may be wrong with it

WHOLE = b"0123456789+- \t\r\n,"  # and one of these alone, of whole numbers
MAX_ROWS = 100_000  # as of the lists in JSON: more of them would hold up all other threads
BLOCK = 1024  # rows

# A row's line, counted from 1, and its cells as they were written.
Line = tuple[int, list[str]]


class CsvRows:
    """Reads text/csv for one signature."""

    def __init__(self, signature: Signature) -> None:
        self._rows = TableRows(signature)
        self._dataframes = Dataframes(signature)
        self._words = {word for feature in signature.features for word in feature.categories}
        self._read_list = plan_number_list(np.dtype(signature.input.dtype))
        self._is_float = np.dtype(signature.input.dtype).kind == "f"
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
        if len(lines) > MAX_ROWS:
            return None
        try:
            return self._rows.try_pack(msgspec.json.decode(text))
        except msgspec.MsgspecError:
            return None

    def _read_thoroughly(self, body: bytes) -> list[bytes]:
        lines = _split(_decode(body))
        names = self._take_header(lines)
        if not lines:
            raise BodyMalformed("the body has no rows", expected="one line for each instance", got="none")
        order = list(range(self._rows.num_columns)) if names is None else self._dataframes.order(names, "the header")
        return self._pack(lines, order)

    def _take_header(self, lines: list[Line]) -> list[str] | None:
        """Take the first line away if a cell of it is a column's name, and nothing that could be a value."""
        if not lines or not self._has_features:
            return None
        cells = [cell.strip() for cell in lines[0][1]]
        if any(cell in self._rows.places and cell not in self._words and not NUMBER.fullmatch(cell) for cell in cells):
            del lines[0]
            return cells
        return None

    def _pack(self, lines: list[Line], order: list[int]) -> list[bytes]:
        """Pack block by block, so that all behind the first mistake is not looked at."""
        packed: list[bytes] = []
        for start in range(0, len(lines), BLOCK):
            packed += self._pack_block(lines[start : start + BLOCK], order)
        return packed

    def _pack_block(self, lines: list[Line], order: list[int]) -> list[bytes]:
        def locate_row(row: int) -> str:
            return f"line {lines[row][0]}"

        def locate(row: int, column: int) -> str:
            return f"line {lines[row][0]}, column {order[column] + 1}"

        rows = self._read_block([cells for _, cells in lines])
        if order != sorted(order):
            rows = [permute(cells, order) for cells in rows]
        return self._rows.pack(rows, locate_row, locate)

    def _read_block(self, rows: list[list[str]]) -> list[list[Any]]:
        if set(map(len, rows)) != {self._rows.num_columns}:
            return [[_read_cell(cell) for cell in cells] for cells in rows]
        if self._words:
            columns = [self._read_column(column) for column in zip(*rows, strict=True)]
            return list(map(list, zip(*columns, strict=True)))
        values = self._read_column(list(chain.from_iterable(rows)))
        width = self._rows.num_columns
        return [values[start : start + width] for start in range(0, len(values), width)]

    def _read_column(self, cells: Sequence[str]) -> list[Any]:
        """Read cells as `_read_cell` does, but in bulk where they are plain numbers; a whole one may become a float."""
        text = ",".join(cells).encode()
        try:
            if not text.translate(None, WHOLE):
                return list(map(int, cells))
            if self._is_float and not text.translate(None, PLAIN):
                return list(map(float, cells))
        except ValueError:  # also of an integer that is too long for Python
            pass
        return [cell if cell in self._words else _read_cell(cell) for cell in cells]


def _decode(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise BodyMalformed(f"the body is not UTF-8: byte {err.start} fits nowhere", expected="CSV in UTF-8") from err


def _split(text: str) -> list[Line]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[Line] = []
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                lines.append((reader.line_num, cells))
            if len(lines) > MAX_ROWS + 1:  # and a header
                raise _too_many()
    except csv.Error as err:
        raise BodyMalformed(f"the body is not CSV: {err}, in line {reader.line_num}", expected="CSV") from err
    return lines


def _too_many() -> RequestInvalid:
    expected = f"at most {MAX_ROWS:,} rows"
    message = f"the body has more than {MAX_ROWS:,} rows: send fewer instances in one request"
    return RequestInvalid(message, expected=expected, got="more")


def _read_cell(cell: str) -> Any:
    """Read a number where the cell is one; else it is a word."""
    text = cell.strip()
    if INTEGER.fullmatch(text):
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else text
