"""Rows of values, in the order of a model's columns, to the bytes of instances: numbers stay, words become codes.

A column is a feature. Where a model names none, each value of its input is a column, and its name is its number: '0',
'1', and so on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from service.bundle import Feature, Signature
from service.diagnosis import check_feature, convert_numbers, find_first, fits_feature, refuse, refuse_unknown
from service.errors import InstanceInvalid
from service.wording import describe, list_names, quote

Array = NDArray[Any]
Rows = Sequence[Sequence[Any]]
# From the row's number to its path, and from the row's and the column's to that of one value.
LocateRow = Callable[[int], str]
Locate = Callable[[int, int], str]

REFUSALS = (KeyError, TypeError, ValueError, OverflowError)


class TableRows:
    """Packs rows for one signature."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._dtype = np.dtype(signature.input.dtype)
        self._num_values = math.prod(signature.input.shape)
        self._codes = [{word: place for place, word in enumerate(each.categories)} for each in signature.features]
        self._has_words = any(self._codes)

    @property
    def num_columns(self) -> int:
        """How many values a row has."""
        return len(self._signature.features) or self._num_values

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The columns, in their order."""
        return self._signature.features or tuple(Feature(name=str(place)) for place in range(self._num_values))

    @cached_property
    def names(self) -> list[str]:
        """The columns' names, in their order."""
        return [feature.name for feature in self.features]

    @cached_property
    def places(self) -> dict[str, int]:
        """Each column's place, by its name."""
        return {name: place for place, name in enumerate(self.names)}

    def refuse_name(self, name: str, path: str) -> NoReturn:
        """Refuse a column that there is not.

        Raises:
            InstanceInvalid: always; with the nearest name, if the model names its columns.
        """
        if self._signature.features:
            refuse_unknown(path, name, self.names, what="feature")
        expected = f"a column from '0' to '{self.num_columns - 1}', as the model names none"
        refuse(path, expected=expected, got=quote(name))

    def pack(self, rows: Rows, locate_row: LocateRow, locate: Locate) -> list[bytes]:
        """Turn rows of plain values into instances.

        Raises:
            InstanceInvalid: and says where the first mistake is, as `locate_row` and `locate` call the place.
        """
        try:
            array = self._pack(rows)
        except REFUSALS as err:
            self._explain(rows, locate_row, locate)
            raise InstanceInvalid(f"{locate_row(0)}: the rows do not fit the model's input") from err
        return split_instances(array)

    def try_pack(self, rows: Rows) -> list[bytes] | None:
        """Do as `pack` does, but give None for rows with a mistake: where it is takes long to say."""
        try:
            return split_instances(self._pack(rows))
        except REFUSALS:
            return None

    def _pack(self, rows: Rows) -> Array:
        return self._pack_mixed(rows) if self._has_words else self._convert(rows, self._num_values)

    def _are_good(self, rows: Rows) -> bool:
        try:
            self._pack(rows)
        except REFUSALS:
            return False
        return True

    def _pack_mixed(self, rows: Rows) -> Array:
        packed = np.zeros((len(rows), self._num_values), self._dtype)
        start = 0
        columns = zip(*_check_widths(rows, len(self._codes)), strict=True)
        for codes, column, feature in zip(self._codes, columns, self._signature.features, strict=True):
            if codes:
                packed[np.arange(len(rows)), [start + codes[word] for word in column]] = 1
            else:
                packed[:, start] = self._convert([column], len(rows))
            start += feature.width
        return packed

    def _convert(self, rows: Rows, width: int) -> Array:
        """Convert rows of `width` numbers; a ValueError or the like for all else."""
        array = convert_numbers(list(chain.from_iterable(_check_widths(rows, width))), self._dtype)
        if array is None:
            raise ValueError("a value is no number, or beyond the dtype")
        return array.reshape(-1, width)

    def _explain(self, rows: Rows, locate_row: LocateRow, locate: Locate) -> None:
        """Say what is wrong with the first row that does not fit."""
        row = find_first(rows, self._are_good)
        values = rows[row]
        if len(values) != self.num_columns:
            wanted = f"{self.num_columns} values ({list_names(self.names)})"
            refuse(locate_row(row), expected=wanted, got=describe(list(values)))
        for column, (value, feature) in enumerate(zip(values, self.features, strict=True)):
            if not fits_feature(value, feature, self._signature):
                check_feature(value, locate(row, column), feature, self._signature)


def split_instances(array: Array) -> list[bytes]:
    """Cut an array [instances, …] into the bytes of each."""
    return split_packed(array.tobytes(), len(array))


def split_packed(packed: bytes, count: int) -> list[bytes]:
    """Cut the bytes of `count` instances into those of each."""
    size = len(packed) // count
    return [packed] if count == 1 else [packed[start : start + size] for start in range(0, len(packed), size)]


def _check_widths(rows: Rows, width: int) -> Rows:
    if set(map(len, rows)) != {width}:
        raise ValueError("a row has another number of values")
    return rows
