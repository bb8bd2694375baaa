"""Tensors as JSON: the very numbers that were sent, or a refusal that names the place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.bundle import TensorSpec
from service.errors import InstanceInvalid
from service.protocols.tensor_json import read_instances, read_tensor

DTYPES = ("float32", "float64", "int64")
PATH = "inputs[0].data"


def spec(shape: tuple[int, ...] = (2, 3), dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="x", dtype=dtype, shape=shape)


def finite(dtype: str, shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    limits: Any = {} if dtype == "int64" else {"allow_nan": False, "allow_infinity": False}
    return arrays.arrays(dtype, shape, elements=arrays.from_dtype(np.dtype(dtype), **limits))


def refusal(value: object, shape: tuple[int, ...] = (1, 2, 3), dtype: str = "float32") -> InstanceInvalid:
    with pytest.raises(InstanceInvalid) as caught:
        read_tensor(value, spec(shape[1:], dtype), shape, PATH)
    return caught.value


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_a_tensor_reads_the_same_flat_and_nested_bit_by_bit(dtype: str, data: st.DataObject) -> None:
    tensor = data.draw(finite(dtype, (2, 2, 3)))
    flat = read_tensor(tensor.ravel().tolist(), spec(dtype=dtype), tensor.shape, PATH)
    nested = read_tensor(tensor.tolist(), spec(dtype=dtype), tensor.shape, PATH)
    assert flat.tobytes() == nested.tobytes() == tensor.tobytes()
    assert (flat.dtype, flat.shape) == (nested.dtype, nested.shape) == (tensor.dtype, tensor.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_instances_read_the_same_nested_flat_and_mixed(dtype: str, data: st.DataObject) -> None:
    instances = data.draw(finite(dtype, (2, 2, 3)))
    first, second = instances
    for value in (
        instances.tolist(),
        instances.reshape(2, 6).tolist(),
        [first.ravel().tolist(), second.tolist()],
    ):
        read = read_instances(value, spec(dtype=dtype), "instances")
        assert read.tobytes() == instances.tobytes()
        assert read.shape == (2, 2, 3)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
)


@pytest.mark.parametrize("dtype", DTYPES)
@given(value=json_values)
def test_any_value_is_a_tensor_of_finite_numbers_or_refused_by_its_path(dtype: str, value: Any) -> None:
    for read in (
        lambda: read_tensor(value, spec((2,), dtype), (1, 2), PATH),
        lambda: read_instances(value, spec((2,), dtype), PATH),
    ):
        outcome = read_or_refuse(read)
        if isinstance(outcome, InstanceInvalid):
            assert outcome.field.startswith(PATH)
            assert outcome.expected
            assert len(str(outcome)) < 300
        else:
            assert all(type(number) in {int, float} for number in np.array(value, dtype=object).ravel())
            assert np.isfinite(outcome).all()


def read_or_refuse(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except InstanceInvalid as err:
        return err


@pytest.mark.parametrize(
    ("value", "field", "expected", "got"),
    [
        ([1, 2, 3, 4, 5], "", "a list of 6 numbers, or nested as 1 × 2 × 3", "a list of 5"),
        ([[[1, 2, 3], [4, 5]]], "[0][1]", "a list of 3 numbers", "a list of 2"),
        ([[1, 2, 3], [4, 5, 6]], "", "a list of 1 lists", "a list of 2"),
        ([[[1, 2, 3], [4, 5, None]]], "[0][1][2]", "a number", "null"),
        ([[[1, 2, 3], [4, "5", 6]]], "[0][1][1]", "a number", "the string '5'"),
        ([1, 2, 3, 4, 5, True], "[5]", "a number", "true"),
        ([1, 2, 3, 4, 5, 1e39], "[5]", "a number that is finite as float32", "1e+39"),
        ([1, float("nan"), 3, 4, 5, 6], "[1]", "a number that is finite as float32", "nan"),
        ([10**400, 2, 3, 4, 5, 6], "[0]", "a number that is finite as float32", "a huge integer"),
        ({}, "", "a list of 6 numbers, or nested as 1 × 2 × 3", "an object"),
        (None, "", "a list of 6 numbers, or nested as 1 × 2 × 3", "null"),
        ([], "", "a list of 6 numbers, or nested as 1 × 2 × 3", "a list of 0"),
    ],
)
def test_a_wrong_value_is_named_by_its_place(value: object, field: str, expected: str, got: str) -> None:
    error = refusal(value)
    assert (error.field, error.expected, error.got) == (PATH + field, expected, got)


@pytest.mark.parametrize("number", [1.5, 1.0, 2**63, -(2**63) - 1, True])
def test_int64_takes_integers_of_64_bits_only(number: object) -> None:
    assert refusal([1, number], (1, 2), "int64").field == f"{PATH}[1]"


def test_int64_keeps_every_bit() -> None:
    numbers = [2**63 - 1, -(2**63), 2**53 + 1]
    assert read_tensor(numbers, spec((3,), "int64"), (1, 3), PATH).ravel().tolist() == numbers


def test_no_instances_are_refused() -> None:
    with pytest.raises(InstanceInvalid, match="one or more instances, got a list of 0"):
        read_instances([], spec(), "instances")


def test_a_wrong_instance_is_named_by_its_number() -> None:
    with pytest.raises(InstanceInvalid, match=r"instances\[1\]\[2\]: expected a number, got null"):
        read_instances([[1, 2, 3], [1, 2, None]], spec((3,)), "instances")
