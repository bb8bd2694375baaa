"""Tensors that were sent as JSON: from lists of numbers to an array that holds these very numbers, or a refusal.

Nothing is converted in silence: no boolean, no string, no null, no NaN counts as a number, no number may overflow the
dtype, and int64 takes integers only. What is well formed is converted in bulk; only a refusal is looked for value by
value.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import TensorSpec
from service.diagnosis import check_number, refuse
from service.wording import describe

Array = NDArray[Any]
Shape = tuple[int, ...]


def read_tensor(value: object, spec: TensorSpec, shape: Shape, path: str) -> Array:
    """Turn a tensor, nested as `shape` or flat in row-major order, into an array of the spec's dtype.

    `shape` is the whole one, with the batch. `path` is where the value stands, as `inputs[0].data`.

    Raises:
        InstanceInvalid: and names the place, as `inputs[0].data[1][3]`.
    """
    values = _flatten(value, shape)
    if values is None:
        values = _flatten(value, (math.prod(shape),))
    array = None if values is None else _convert(values, spec.dtype)
    if array is None:
        _explain_tensor(value, spec.dtype, shape, path)
        refuse(path, expected=_expected(shape, spec.dtype), got=describe(value))
    return array.reshape(shape)


def read_instances(value: object, spec: TensorSpec, path: str) -> Array:
    """Turn a list of instances into an array [instances, *shape]; each is nested as the spec's shape, or flat.

    Raises:
        InstanceInvalid: and names the place, as `instances[1][3]`.
    """
    if not isinstance(value, list) or not value:
        refuse(path, expected="a list of one or more instances", got=describe(value))
    shape = (len(value), *spec.shape)
    values = _flatten(value, shape)
    if values is None:
        values = _flatten(value, (len(value), math.prod(spec.shape)))
    array = None if values is None else _convert(values, spec.dtype)
    if array is not None:
        return array.reshape(shape)
    places = enumerate(value)
    return np.stack([read_tensor(instance, spec, spec.shape, f"{path}[{place}]") for place, instance in places])


def _flatten(value: object, shape: Shape) -> list[Any] | None:
    """Take all lists of a value that is nested as `shape` apart; None if it is nested otherwise."""
    level: list[Any] = [value]
    for size in shape:
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            return None
        level = level[0] if len(level) == 1 else list(chain.from_iterable(level))
    return level


def _convert(values: list[Any], dtype: str) -> Array | None:
    """Convert numbers; None if there is anything else among them, or one that the dtype does not hold."""
    is_integer = dtype == "int64"
    if not set(map(type, values)) <= ({int} if is_integer else {int, float}):
        return None
    try:
        array = np.fromiter(values, np.int64 if is_integer else np.float64, len(values))
    except OverflowError:
        return None
    with np.errstate(over="ignore"):
        array = array.astype(dtype, copy=False)
    return array if np.isfinite(array).all() else None


# --- why not ---------------------------------------------------------------------------------------------------------


def _explain_tensor(value: object, dtype: str, shape: Shape, path: str) -> None:
    """Raise for the first mistake."""
    if not isinstance(value, list):
        refuse(path, expected=_expected(shape, dtype), got=describe(value))
    if len(shape) > 1 and any(isinstance(item, list) for item in value):
        _explain_nested(value, dtype, shape, path)
    else:
        _explain_flat(value, dtype, shape, path)


def _explain_flat(value: list[Any], dtype: str, shape: Shape, path: str) -> None:
    if len(value) != math.prod(shape):
        refuse(path, expected=_expected(shape, dtype), got=describe(value))
    for place, item in enumerate(value):
        check_number(item, f"{path}[{place}]", dtype)


def _explain_nested(value: object, dtype: str, shape: Shape, path: str) -> None:
    if not shape:
        check_number(value, path, dtype)
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        items = "lists" if len(shape) > 1 else _noun(dtype)
        refuse(path, expected=f"a list of {shape[0]} {items}", got=describe(value))
    for place, item in enumerate(value):
        _explain_nested(item, dtype, shape[1:], f"{path}[{place}]")


def _expected(shape: Shape, dtype: str) -> str:
    if not shape:
        return "an integer" if dtype == "int64" else "a number"
    flat = f"a list of {math.prod(shape)} {_noun(dtype)}"
    return flat if len(shape) == 1 else f"{flat}, or nested as {' × '.join(map(str, shape))}"


def _noun(dtype: str) -> str:
    return "integers" if dtype == "int64" else "numbers"
