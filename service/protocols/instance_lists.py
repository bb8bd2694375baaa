"""Several instances from one JSON list, as TensorFlow Serving, Vertex AI and MLflow send them.

An instance is an array, nested or flat; or a row of a table, as a list in the features' order or as an object of named
features; or an object that has the name of the model's input in front of any of these.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from service.bundle import Signature
from service.diagnosis import refuse, refuse_unknown
from service.instance import InstanceReader
from service.number_text import plan_number_list
from service.protocols.table_rows import TableRows, split_instances, split_packed
from service.protocols.tensor_json import read_instances
from service.wording import describe, list_names, quote

KEY = b'"instances"'
HEADS_OF_ONE = (b'{"instances":[[', b'{"instances": [[')  # as JSON is written without spaces, and as Python writes it
SPACE = b" \t\r\n"


class InstanceLists:
    """Reads lists of instances of one signature."""

    def __init__(self, signature: Signature) -> None:
        self._spec = signature.input
        self._is_table = bool(signature.features)
        self._rows = TableRows(signature)
        self._named = {signature.input.name}
        shape = signature.input.shape
        self._num_brackets = 1 + sum(math.prod(shape[:axis]) for axis in range(1, len(shape)))  # of one instance
        has_numbers_only = bool(shape) and not any(feature.categories for feature in signature.features)
        self._read_list = plan_number_list(np.dtype(signature.input.dtype)) if has_numbers_only else None
        self._try_pack = InstanceReader(signature).try_pack if has_numbers_only else None

    def try_body(self, body: bytes) -> list[bytes] | None:
        """Read a body `{"instances": […]}` the quickest way: one flat instance, or many numbers; else None."""
        if self._try_pack is not None:
            for head in HEADS_OF_ONE:
                if body.startswith(head) and body.find(b"]") == len(body) - 3 and body.endswith(b"]]}"):
                    packed = self._try_pack(b'{"instance":[' + body[len(head) : -3] + b"]}")
                    return None if packed is None else [packed]
        colon = body.find(b":")
        if self._read_list is None or body.find(b":", colon + 1) != -1 or not _is_head(body[:colon]):
            return None
        text = body[colon + 1 :].rstrip(SPACE)
        count, rest = divmod(text.count(b"[") - 1, self._num_brackets)
        if rest or count < 1 or not text.endswith(b"}"):
            return None
        packed = self._read_list(text[:-1].strip(SPACE), (count, *self._spec.shape))
        return None if packed is None else split_packed(packed, count)

    def read(self, value: object, path: str) -> list[bytes]:
        """Turn a list of instances into the bytes of each.

        Raises:
            InstanceInvalid: and says what is wrong at which place below `path`.
        """
        if not isinstance(value, list) or not value:
            refuse(path, expected="a list of one or more instances", got=describe(value))
        if isinstance(value[0], dict) and self._takes_input_names(value):
            return self._read_named_inputs(value, path)
        if self._is_table:
            return self.read_rows(value, path)
        if isinstance(value[0], dict):
            self._refuse_names(value[0], f"{path}[0]")
        return split_instances(read_instances(value, self._spec, path))

    def read_rows(self, value: list[Any], path: str) -> list[bytes]:
        """Turn rows into instances: each a list in the columns' order, or an object of named columns.

        Raises:
            InstanceInvalid: and says what is wrong at which place below `path`.
        """
        rows = [self._order(row, path, place) for place, row in enumerate(value)]
        names = self._rows.names

        def locate_row(row: int) -> str:
            return f"{path}[{row}]"

        def locate(row: int, column: int) -> str:
            place = quote(names[column]) if isinstance(value[row], dict) else column
            return f"{path}[{row}][{place}]"

        return self._rows.pack(rows, locate_row, locate)

    def _order(self, row: object, path: str, place: int) -> list[Any]:
        if isinstance(row, list):
            return row
        names = self._rows.names
        if not isinstance(row, dict):
            wanted = f"a list of {len(names)} values, or an object of named features"
            refuse(f"{path}[{place}]", expected=wanted, got=describe(row))
        if len(row) != len(names) or not self._rows.places.keys() >= row.keys():
            self._refuse_row(row, f"{path}[{place}]")
        return [row[name] for name in names]

    def _refuse_row(self, row: dict[str, Any], path: str) -> None:
        names = self._rows.names
        for name in row:
            if name not in self._rows.places:
                self._rows.refuse_name(name, f"{path}[{quote(name)}]")
        missing = [name for name in names if name not in row]
        refuse(path, expected=f"all {len(names)} features", got=f"none named {list_names(missing)}")

    def _takes_input_names(self, value: list[Any]) -> bool:
        return value[0].keys() == self._named and not (self._is_table and set(self._rows.names) == self._named)

    def _read_named_inputs(self, value: list[Any], path: str) -> list[bytes]:
        """Take what stands behind the input's name in each instance."""
        name = self._spec.name
        for place, instance in enumerate(value):
            if not isinstance(instance, dict) or instance.keys() != self._named:
                wanted = f"an object with the key {quote(name)}, like the first instance"
                refuse(f"{path}[{place}]", expected=wanted, got=describe(instance))
        inner = [instance[name] for instance in value]
        if self._is_table:
            return self.read_rows(inner, path)
        return split_instances(read_instances(inner, self._spec, path))

    def _refuse_names(self, instance: dict[str, Any], path: str) -> None:
        wanted = f"the array, or an object with the key {quote(self._spec.name)}"
        for name in instance:
            if name != self._spec.name:
                refuse_unknown(f"{path}[{quote(name)}]", name, [self._spec.name], what="input")
        refuse(path, expected=wanted, got="an empty object")


def _is_head(text: bytes) -> bool:
    text = text.strip(SPACE)
    return text.startswith(b"{") and text[1:].strip(SPACE) == KEY
