"""Tables that were sent as JSON, their columns matched by name: split as pandas does, as records, or column by column.

The order of the columns is as one likes: they are the model's features, by their names. A model that names none takes
columns that are numbered from 0 on; and, split, columns without names, by their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.bundle import Signature
from service.diagnosis import refuse
from service.protocols.instance_lists import InstanceLists
from service.protocols.table_rows import TableRows
from service.wording import describe, list_names, quote

SPLIT_KEYS = {"columns", "index", "data"}


class Dataframes:
    """Reads tables for one signature."""

    def __init__(self, signature: Signature) -> None:
        self._lists = InstanceLists(signature)
        self._rows = TableRows(signature)

    def has_only(self, name: str) -> bool:
        """Whether the table has one column, of this name."""
        return self._rows.num_columns == 1 and self._rows.names == [name]

    def read_split(self, value: object, path: str) -> list[bytes]:
        """Read `{"columns": […], "data": [[…], …]}`; an `index` is passed over.

        Raises:
            InstanceInvalid: and says what is wrong at which place below `path`.
        """
        if not isinstance(value, dict) or "data" not in value or not value.keys() <= SPLIT_KEYS:
            got = ", ".join(map(quote, list(value)[:3])) if isinstance(value, dict) else describe(value)
            refuse(path, expected="an object with the keys 'columns' and 'data'", got=got or "an empty object")
        data = _take_rows(value["data"], f"{path}.data")
        columns = value.get("columns")
        order = list(range(self._rows.num_columns)) if columns is None else self.order(columns, f"{path}.columns")
        return self.pack(data, order, f"{path}.data")

    def read_records(self, value: object, path: str) -> list[bytes]:
        """Read `[{"<column>": …, …}, …]`.

        Raises:
            InstanceInvalid: and says what is wrong at which place below `path`.
        """
        rows = _take_rows(value, path, kind=dict)
        return self._lists.read_rows(rows, path)

    def read_columns(self, value: dict[str, Any], path: str) -> list[bytes]:
        """Read `{"<column>": […], …}`, each column with a value for every instance.

        Raises:
            InstanceInvalid: and says what is wrong at which place below `path`.
        """
        names = self._rows.names
        for name in value:
            if name not in self._rows.places:
                self._rows.refuse_name(name, f"{path}[{quote(name)}]")
        self.order(list(value), path)
        columns = [value[name] for name in names]
        for name, column in zip(names, columns, strict=True):
            if not isinstance(column, list) or len(column) != len(columns[0]) or not column:
                wanted = "a list of one or more values, as many as in the other columns"
                refuse(f"{path}[{quote(name)}]", expected=wanted, got=describe(column))
        rows = list(zip(*columns, strict=True))
        return self._rows.pack(
            rows, lambda row: f"{path}, row {row}", lambda row, column: f"{path}[{quote(names[column])}][{row}]"
        )

    def order(self, columns: object, path: str) -> list[int]:
        """Find at which place each of the model's columns was sent.

        Raises:
            InstanceInvalid: one is unknown, missing, or there twice.
        """
        places: dict[str, int] = {}
        for place, column in enumerate(_take_names(columns, path)):
            if column not in self._rows.places:
                self._rows.refuse_name(column, f"{path}[{place}]")
            if column in places:
                refuse(f"{path}[{place}]", expected="each column once", got=f"{quote(column)} again")
            places[column] = place
        missing = [name for name in self._rows.names if name not in places]
        if missing:
            refuse(path, expected=f"all {self._rows.num_columns} columns", got=f"none named {list_names(missing)}")
        return [places[name] for name in self._rows.names]

    def pack(self, data: Sequence[list[Any]], order: list[int], path: str) -> list[bytes]:
        """Put each row into the model's order, and pack it."""
        width = len(order)
        rows = data if order == list(range(width)) else [permute(row, order) for row in data]
        return self._rows.pack(
            rows, lambda row: f"{path}[{row}]", lambda row, column: f"{path}[{row}][{order[column]}]"
        )


def permute(row: list[Any], order: list[int]) -> list[Any]:
    """Order a row; one of another length stays as it is, to be refused."""
    return [row[place] for place in order] if len(row) == len(order) else row


def _take_rows(value: object, path: str, kind: type = list) -> list[Any]:
    noun = "list" if kind is list else "object"
    if not isinstance(value, list) or not value:
        refuse(path, expected=f"a list of one or more {noun}s", got=describe(value))
    for place, row in enumerate(value):
        if not isinstance(row, kind):
            refuse(f"{path}[{place}]", expected=f"a row, as {'a' if kind is list else 'an'} {noun}", got=describe(row))
    return value


def _take_names(columns: object, path: str) -> list[str]:
    """Take names as they are, and numbers, as pandas gives to columns without names, as texts."""
    if not isinstance(columns, list):
        refuse(path, expected="a list of names", got=describe(columns))
    for place, column in enumerate(columns):
        if isinstance(column, bool) or not isinstance(column, str | int):
            refuse(f"{path}[{place}]", expected="a name", got=describe(column))
    return list(map(str, columns))
