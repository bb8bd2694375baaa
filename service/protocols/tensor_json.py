"""Tensors that were sent as JSON: from lists of numbers to an array that holds these very numbers, or a refusal.

Nothing is converted in silence: no boolean, no string, no null, no NaN counts as a number, no number may overflow the
dtype, and int64 takes integers only. What is well formed is converted in bulk; only a refusal is looked for value by
value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import TensorSpec
from service.diagnosis import check_nested, convert_numbers, find_first, flatten, refuse
from service.wording import describe

Array = NDArray[Any]
Shape = tuple[int, ...]


def read_tensor(value: object, spec: TensorSpec, shape: Shape, path: str) -> Array:
    """Turn a tensor, nested as `shape` or flat in row-major order, into an array of the spec's dtype.

    `shape` is the whole one, with the batch. `path` is where the value stands, as `inputs[0].data`.

    Raises:
        InstanceInvalid: and names the place, as `inputs[0].data[1][3]`.
    """
    values = flatten(value, shape)
    if values is None:
        values = flatten(value, (math.prod(shape),))
    array = None if values is None else convert_numbers(values, np.dtype(spec.dtype))
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
    array = _convert_instances(value, spec)
    if array is None:
        _explain_instances(value, spec, path)
        refuse(path, expected="instances that fit the model's input", got=describe(value))
    return array.reshape(len(value), *spec.shape)


def _flatten_each(value: Sequence[Any], spec: TensorSpec) -> list[Any] | None:
    """Take the instances apart, one nested and the other flat as it may be; None if one is neither."""
    flat = (math.prod(spec.shape),)
    values = flatten(value, (len(value), *spec.shape))
    if values is None:
        values = flatten(value, (len(value), *flat))
    if values is not None:
        return values
    values = []
    for instance in value:
        inner = flatten(instance, spec.shape)
        if inner is None:
            inner = flatten(instance, flat)
        if inner is None:
            return None
        values.extend(inner)
    return values


def _explain_instances(value: list[Any], spec: TensorSpec, path: str) -> None:
    """Raise for the first instance with a mistake."""
    place = find_first(value, lambda part: _convert_instances(part, spec) is not None)
    _explain_tensor(value[place], spec.dtype, spec.shape, f"{path}[{place}]")


def _convert_instances(value: Sequence[Any], spec: TensorSpec) -> Array | None:
    values = _flatten_each(value, spec)
    return None if values is None else convert_numbers(values, np.dtype(spec.dtype))


# --- why not ---------------------------------------------------------------------------------------------------------


def _explain_tensor(value: object, dtype: str, shape: Shape, path: str) -> None:
    """Raise for the first mistake."""
    if not isinstance(value, list):
        refuse(path, expected=_expected(shape, dtype), got=describe(value))
    if len(shape) > 1 and any(isinstance(item, list) for item in value):
        check_nested(value, shape, path, dtype)
    elif len(value) != math.prod(shape):
        refuse(path, expected=_expected(shape, dtype), got=describe(value))
    else:
        check_nested(value, (len(value),), path, dtype)


def _expected(shape: Shape, dtype: str) -> str:
    if not shape:
        return "an integer" if dtype == "int64" else "a number"
    flat = f"a list of {math.prod(shape)} {_noun(dtype)}"
    return flat if len(shape) == 1 else f"{flat}, or nested as {' × '.join(map(str, shape))}"


def _noun(dtype: str) -> str:
    return "integers" if dtype == "int64" else "numbers"
