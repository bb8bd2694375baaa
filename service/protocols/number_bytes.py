"""Instances out of bytes that are numbers already: NumPy's .npy files, and raw little-endian values.

They are the model's own input, row-major. A .npy array may be of another dtype of numbers: each number is then rounded
to the nearest of the model's, just as a number in JSON is, and as nearly every NumPy array is float64 by default. So
the same numbers give the same answer in each form. What overflows is refused, and int64 takes integers only. Raw values
have no dtype with them, and are taken as the model's.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.bundle import TensorSpec
from service.diagnosis import refuse
from service.errors import BodyMalformed
from service.protocols.npy_header import read_npy_header
from service.protocols.table_rows import split_instances
from service.wording import quote

Array = NDArray[Any]
Shape = tuple[int, ...]
NUMBERS = re.compile("[<>=|]?(f[248]|[iu][1248])")


def read_npy(body: bytes, spec: TensorSpec) -> list[bytes]:
    """Turn a .npy file with an array [instances, *shape], or with one instance, into instances.

    Raises:
        BodyMalformed: it is no .npy file of numbers.
        InstanceInvalid: dtype, shape or a value do not fit the model.
    """
    array = _read_array(body)
    _check_dtype(array.dtype, spec.dtype)
    if array.shape == spec.shape:
        array = array[np.newaxis]
    if array.ndim != 1 + len(spec.shape) or array.shape[1:] != spec.shape:
        found = list(array.shape)
        refuse("the array", expected=f"the shape {_list_axes(spec.shape)}", got=f"the shape {found}")
    return split_instances(_convert(array, spec.dtype))


def read_raw(body: bytes, spec: TensorSpec) -> list[bytes]:
    """Cut raw values into instances.

    Raises:
        BodyMalformed: they are not a whole number of instances, or none.
        InstanceInvalid: a value is not finite.
    """
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    size = dtype.itemsize * math.prod(spec.shape)
    if not body or len(body) % size:
        expected = f"{size} bytes for each instance ({spec.dtype}, shape {list(spec.shape)}, little-endian)"
        got = f"{len(body)} bytes"
        raise BodyMalformed(f"the body: expected {expected}, got {got}", expected=expected, got=got)
    return split_instances(_convert(np.frombuffer(body, dtype).reshape(-1, *spec.shape), spec.dtype))


def _read_array(body: bytes) -> Array:
    """Take what is behind the header as the values: nothing is allocated before the sizes are right."""
    header = read_npy_header(body)
    if not NUMBERS.fullmatch(header.descr):
        expected = "a dtype of integers, or of floats of up to 64 bits"
        refuse("the array", expected=expected, got=quote(header.descr))
    dtype = np.dtype(header.descr)
    size, there = math.prod(header.shape) * dtype.itemsize, len(body) - header.start
    if size != there or not size:
        expected, got = f"{size} bytes of values for the shape {list(header.shape)}", f"{there} bytes"
        raise BodyMalformed(f"the .npy file: expected {expected}, got {got}", expected=expected, got=got)
    order: Literal["F", "C"] = "F" if header.is_fortran_order else "C"
    return np.frombuffer(body, dtype, offset=header.start).reshape(header.shape, order=order)


def _check_dtype(found: np.dtype[Any], wanted: str) -> None:
    if wanted == "int64" and found.kind not in "iu":
        refuse("the array", expected="a dtype of integers, for int64", got=str(found))


def _convert(array: Array, dtype: str) -> Array:
    """Convert an array [instances, *shape], by way of float64 as numbers in JSON are."""
    if dtype == "int64":
        fits = np.asarray(array <= np.iinfo(np.int64).max)
        converted = array.astype(np.int64)
    else:
        converted = _round(array, dtype)
        fits = np.isfinite(converted)
    if not fits.all():
        _refuse_value(array, fits, dtype)
    return np.ascontiguousarray(converted)


def _round(array: Array, dtype: str) -> Array:
    is_same = array.dtype.newbyteorder("=") == np.dtype(dtype)
    with np.errstate(over="ignore"):
        return (array if is_same else array.astype(np.float64)).astype(dtype)


def _refuse_value(array: Array, fits: Array, dtype: str) -> None:
    place = tuple(int(index) for index in np.argwhere(~fits)[0])
    expected = "an integer of 64 bits" if dtype == "int64" else f"a number that is finite as {dtype}"
    path = "instances" + "".join(f"[{index}]" for index in place)
    refuse(path, expected=expected, got=str(array[place]))


def _list_axes(shape: Shape) -> str:
    return f"[instances{''.join(f', {size}' for size in shape)}]"
