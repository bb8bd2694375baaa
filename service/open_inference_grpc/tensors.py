"""The instances of a message's one input: from its raw bytes, or from the numbers in the field of its datatype.

Either way the same numbers become the same bytes; and none of them is NaN or infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.bundle import TensorSpec
from service.errors import InstanceInvalid, RequestInvalid

CONTENTS_OF = {"float32": "fp32_contents", "float64": "fp64_contents", "int64": "int64_contents"}


class TensorReader:
    """Reads tensors [instances, *shape] of one spec."""

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._dtype = np.dtype(spec.dtype)
        self._count = math.prod(spec.shape)
        self._num_bytes = self._count * self._dtype.itemsize
        self._field = CONTENTS_OF[spec.dtype]

    def read(self, request: Any, num_instances: int) -> Sequence[bytes]:
        """Read the instances of a ModelInferRequest that has just this input.

        Raises:
            RequestInvalid: the numbers stand nowhere, or twice.
            InstanceInvalid: they are not as many as the tensor has, or not all of them are finite.
        """
        raw, contents = request.raw_input_contents, request.inputs[0].contents
        fields = [field.name for field, _ in contents.ListFields()]
        if bool(raw) == bool(fields):
            raise self._refused_place("both" if raw else "neither")
        packed = self._read_raw(raw, num_instances) if raw else self._read_contents(contents, fields, num_instances)
        self._check_finite(packed)
        return self._split(packed, num_instances)

    def _read_raw(self, raw: Sequence[bytes], num_instances: int) -> bytes:
        if len(raw) != 1:
            raise _invalid("raw_input_contents", expected="one entry, for the one input", got=f"{len(raw)} entries")
        wanted = num_instances * self._num_bytes
        if len(raw[0]) != wanted:
            expected = f"{wanted} bytes, {self._describe(num_instances)}"
            raise _refused("raw_input_contents[0]", expected=expected, got=f"{len(raw[0])} bytes")
        return raw[0]

    def _read_contents(self, contents: Any, fields: list[str], num_instances: int) -> bytes:
        path = "inputs[0].contents"
        if fields != [self._field]:
            raise _invalid(path, expected=f"{self._field}, for {self._spec.dtype}", got=", ".join(fields))
        values = getattr(contents, self._field)
        wanted = num_instances * self._count
        if len(values) != wanted:
            expected = f"{wanted} numbers, {self._describe(num_instances)}"
            raise _refused(f"{path}.{self._field}", expected=expected, got=f"{len(values)} numbers")
        return np.array(values, self._dtype).tobytes()

    def _check_finite(self, packed: bytes) -> None:
        if self._dtype.kind != "f":
            return
        values = np.frombuffer(packed, self._dtype)
        finite = np.isfinite(values)
        if not finite.all():
            place = int(finite.argmin())
            raise _refused(f"inputs[0][{place}]", expected="a finite number", got=str(values[place]))

    def _split(self, packed: bytes, num_instances: int) -> Sequence[bytes]:
        if num_instances == 1:
            return (packed,)
        size = self._num_bytes
        return [packed[start : start + size] for start in range(0, len(packed), size)]

    def _describe(self, num_instances: int) -> str:
        return f"for {self._spec.dtype} of shape {[num_instances, *self._spec.shape]}"

    def _refused_place(self, got: str) -> RequestInvalid:
        return _invalid("inputs[0]", expected=f"either raw_input_contents or contents.{self._field}", got=got)


def _refused(path: str, *, expected: str, got: str) -> InstanceInvalid:
    return InstanceInvalid(f"{path}: expected {expected}, got {got}", field=path, expected=expected, got=got)


def _invalid(path: str, *, expected: str, got: str) -> RequestInvalid:
    return RequestInvalid(f"{path}: expected {expected}, got {got}", field=path, expected=expected, got=got)
