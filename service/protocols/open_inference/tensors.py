"""The instances of a request's one input: out of the JSON, or out of the bytes that follow it.

Whatever the form, the same numbers become the same bytes; and none of them is NaN or infinite.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from service.bundle import TensorSpec
from service.errors import InstanceInvalid, RequestInvalid
from service.number_text import plan_number_list
from service.protocols.open_inference.framing import Frame
from service.protocols.tensor_json import read_tensor

TYPECODES = {"float32": "f", "float64": "d", "int64": "q"}
DATA = "inputs[0].data"


class TensorReader:
    """Reads tensors [instances, *shape] of one spec."""

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._dtype = np.dtype(spec.dtype)
        self._count = math.prod(spec.shape)
        self._decode = _plan_decoding(spec.dtype)
        self._read_list = plan_number_list(self._dtype)
        self.num_bytes = self._count * self._dtype.itemsize  # of one instance

    def read_data(self, data: Any, num_instances: int, *, is_quick: bool = False) -> Sequence[bytes]:
        """Read what stands in the document, as JSON text or as values; if it `is_quick`, no value by itself.

        Raises:
            InstanceInvalid: it is no such tensor; the message names the place.
            MsgspecError: it is text, but not JSON.
            ValueError: it is to be read quickly, and can not be.
        """
        packed = self._try_text(data, num_instances) if isinstance(data, bytes) else None
        if packed is None and is_quick:
            raise ValueError("to read the numbers takes long")
        if packed is None:
            value = msgspec.json.decode(data) if isinstance(data, bytes) else data
            packed = read_tensor(value, self._spec, (num_instances, *self._spec.shape), DATA).tobytes()
        return self._split(packed, num_instances)

    def read_bytes(self, frame: Frame, num_instances: int, size: int) -> Sequence[bytes]:
        """Read `size` bytes after the document, which have to be all that there are.

        Raises:
            RequestInvalid: there are more or fewer.
            InstanceInvalid: they are not as many as the tensor has, or not all of its numbers are finite.
        """
        self._check_size(size, num_instances)
        if size != frame.num_bytes_after:
            _refuse_length(size, frame.num_bytes_after)
        packed = frame.body[frame.json_length :]
        self._check_finite(packed, "inputs[0]")
        return self._split(packed, num_instances)

    def read_raw(self, body: bytes) -> Sequence[bytes]:
        """Read a body that is one instance, and nothing else.

        Raises:
            InstanceInvalid: it is not as long as an instance, or not all of its numbers are finite.
        """
        if len(body) != self.num_bytes:
            shape = " × ".join(map(str, self._spec.shape))
            expected = f"{self.num_bytes} bytes, which are one instance, {self._spec.dtype} {shape}"
            raise _refused("the body", expected=expected, got=f"{len(body)} bytes")
        self._check_finite(body, "the body")
        return (body,)

    def _try_text(self, text: bytes, num_instances: int) -> bytes | None:
        """Read a long list, or one that is flat and short; None for all else, be it right or wrong."""
        if self._read_list is not None:
            packed = self._read_list(text, (num_instances, *self._spec.shape))
            if packed is not None:
                return packed
        try:
            values = self._decode(text)
            if len(values) == num_instances * self._count:
                return struct.pack(f"={len(values)}{TYPECODES[self._spec.dtype]}", *values)
        except (msgspec.MsgspecError, ValueError, struct.error, OverflowError, RecursionError):
            return None
        return None

    def _split(self, packed: bytes, num_instances: int) -> Sequence[bytes]:
        if num_instances == 1:
            return (packed,)
        size = self.num_bytes
        return [packed[start : start + size] for start in range(0, len(packed), size)]

    def _check_size(self, size: int, num_instances: int) -> None:
        wanted = num_instances * self.num_bytes
        if size != wanted:
            path = "inputs[0].parameters.binary_data_size"
            shape = [num_instances, *self._spec.shape]
            raise _refused(path, expected=f"{wanted}, for {self._spec.dtype} of shape {shape}", got=str(size)[:40])

    def _check_finite(self, packed: bytes, path: str) -> None:
        if self._dtype.kind != "f":
            return
        values = np.frombuffer(packed, self._dtype)
        if np.vdot(values, values) < np.inf:  # quickly; what is finite may overflow here, and is looked at once more
            return
        finite = np.isfinite(values)
        if not finite.all():
            place = int(finite.argmin())
            raise _refused(f"{path}[{place}]", expected="a finite number", got=str(values[place]))


def _plan_decoding(dtype: str) -> Callable[[bytes], Any]:
    """Plan the decoding of a flat list of numbers."""
    return msgspec.json.Decoder(list[int] if dtype == "int64" else list[float]).decode


def refuse_rest(frame: Frame) -> None:
    """Refuse bytes after a document that has its numbers in itself.

    Raises:
        RequestInvalid: there are some.
    """
    if frame.num_bytes_after:
        _refuse_length(0, frame.num_bytes_after)


def _refuse_length(wanted: int, found: int) -> None:
    difference = wanted - found
    what = f"{difference} bytes are missing" if difference > 0 else f"{-difference} bytes are left over"
    expected, got = f"{wanted} bytes after the JSON", str(found)
    raise RequestInvalid(f"the body: expected {expected}, got {got}: {what}", expected=expected, got=got)


def _refused(path: str, *, expected: str, got: str) -> InstanceInvalid:
    return InstanceInvalid(f"{path}: expected {expected}, got {got}", field=path, expected=expected, got=got)
