"""The certificate of batches: each size is judged by itself, by its bits or by units in the last place."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from service.batches import Batches
from service.batching import MAX_ULPS, SIZES, Batching, plan_batching
from service.session import Session, open_session
from service.settings import read_settings
from service.ulps import distances, largest_distance, same_bits
from tests.service.tiny_models import Array, tiny_model, to_model

FLOAT_DTYPES = (np.float16, np.float32, np.float64)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may find that a batch does not pay: not what is tested here."""
    monkeypatch.setattr("service.batching._pays", lambda *_: True)


# --- units in the last place -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("start", [0.0, -0.0, 1.0, -1.0, 2.0, 6e-8, -6e-8, 1000.0])
def test_so_many_steps_to_the_next_number_are_so_many_units(dtype: Any, start: float) -> None:
    """`nextafter` is the oracle; from below zero it steps over it, to the numbers of the other sign."""
    begin = np.array([start], dtype)
    for towards in (np.inf, -np.inf):
        number = begin
        for steps in range(1, 6):
            number = np.nextafter(number, dtype(towards))
            assert distances(begin, number) == distances(number, begin) == steps


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_the_smallest_numbers_of_both_signs_are_two_units_apart_and_zeros_none(dtype: Any) -> None:
    tiny = np.array([np.finfo(dtype).smallest_subnormal])
    zero = np.zeros(1, dtype)
    assert distances(tiny, -tiny) == 2
    assert distances(zero, -zero) == 0
    assert not same_bits(zero, -zero)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_the_largest_numbers_of_both_signs_do_not_overflow(dtype: Any) -> None:
    largest = np.array([np.finfo(dtype).max])
    assert int(distances(largest, -largest)[0]) == 2 * int(distances(largest, np.zeros(1, dtype))[0])


@given(a=finite, b=finite, c=finite)
def test_distances_between_three_numbers_in_a_row_add_up(a: float, b: float, c: float) -> None:
    low, middle, high = (np.array([value], np.float32) for value in sorted((a, b, c)))
    assert int(distances(low, high)[0]) == int(distances(low, middle)[0]) + int(distances(middle, high)[0])


@pytest.mark.parametrize(
    ("some", "others", "expected"),
    [
        (np.array([1, 2]), np.array([1, 2]), 0),
        (np.array([1, 2]), np.array([1, 3]), math.inf),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), 0),
        (np.array([1.0, np.inf]), np.array([1.0, np.nan]), math.inf),
        (np.array([1.0, np.inf]), np.array([1.0, 2.0]), math.inf),
        (np.array([1.0, -np.inf]), np.array([np.nextafter(1.0, 2), -np.inf]), 1),
    ],
)
def test_what_has_no_units_between_it_is_infinitely_far_apart(some: Array, others: Array, expected: float) -> None:
    assert largest_distance([some], [others]) == expected


def test_all_nans_are_one_value() -> None:
    quiet, other = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert same_bits(np.array([quiet]), np.array([other]))


# --- the certificate -------------------------------------------------------------------------------------------------


def save_depending_on_size(path: Path, *, size: int, factor: float) -> Path:
    """Save y = x, but y = factor·x in batches of `size`, and only there."""
    constants: dict[str, Array] = {"first": np.array([0], np.int64), "size": np.array([size], np.int64)}
    constants |= {"more": np.array([factor - 1], np.float32), "one": np.array([1], np.float32)}
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["batch"]),
        helper.make_node("Equal", ["batch", "size"], ["is_it"]),
        helper.make_node("Cast", ["is_it"], ["chosen"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["chosen", "more"], ["extra"]),
        helper.make_node("Add", ["extra", "one"], ["factor"]),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    return save(path, nodes, constants)


def save_feeling_overflow(path: Path) -> Path:
    """Save y = x, but y = x + 1 where anything in the batch is beyond 1e30."""
    constants: dict[str, Array] = {"axes": np.array([0, 1], np.int64), "limit": np.array(1e30, np.float32)}
    nodes = [
        helper.make_node("ReduceMax", ["x", "axes"], ["largest"], keepdims=1),
        helper.make_node("Greater", ["largest", "limit"], ["is_it"]),
        helper.make_node("Cast", ["is_it"], ["extra"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "extra"], ["y"]),
    ]
    return save(path, nodes, constants)


def save(path: Path, nodes: list[Any], constants: dict[str, Array]) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy")
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    onnx.save(to_model(nodes, [x], [y], weights), path)
    return path


def plan(session: Session, *, bitwise: bool = True) -> Batching:
    return plan_batching(session, (), 1e-5, bitwise=bitwise)


FEW_ULPS = 1 + 4 * float(np.finfo(np.float32).eps)  # x·(1 + 4ε): from 4 to 8 units of x


@pytest.fixture
def odd_three(tmp_path: Path) -> Session:
    """Open a model whose batches of three, and no others, are a few units off."""
    return open_session(save_depending_on_size(tmp_path / "m.onnx", size=3, factor=FEW_ULPS), device="cpu")


def test_one_size_that_differs_in_a_bit_is_left_out_and_the_others_stay(odd_three: Session) -> None:
    found = plan(odd_three)
    assert found.sizes == (1, *(size for size in SIZES if size != 3))
    assert (found.bitwise, found.certificate.overall) == (True, "bitwise")
    (three,) = (one for one in found.certificate.sizes if one.size == 3)
    assert not three.used
    assert 4 <= int(three.certificate.removesuffix(" ulp")) <= 8
    assert three.reason == "rows are not bitwise the answers alone"


def test_without_bitwise_it_is_used_and_the_certificate_says_how_far_off_it_is(odd_three: Session) -> None:
    found = plan(odd_three, bitwise=False)
    assert found.sizes == (1, *SIZES)
    assert not found.bitwise
    assert 4 <= int(found.certificate.overall.removesuffix(" ulp")) <= 8


def test_beyond_the_limit_a_size_is_off_whatever_was_asked_for(tmp_path: Path) -> None:
    factor = 1 + 2 * MAX_ULPS * float(np.finfo(np.float32).eps)
    session = open_session(save_depending_on_size(tmp_path / "m.onnx", size=8, factor=factor), device="cpu")
    found = plan(session, bitwise=False)
    assert found.sizes == (1, *(size for size in SIZES if size != 8))
    assert found.bitwise
    assert {one.size: one.certificate for one in found.certificate.sizes}[8] == "off"


def test_a_zero_of_another_sign_is_not_bitwise(tmp_path: Path) -> None:
    """The text of the answer would be -0.0 for one company and 0.0 for another."""
    path = save_depending_on_size(tmp_path / "m.onnx", size=4, factor=1.0)
    model = onnx.load(path)
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.array([-2], np.float32), "more"))  # y = -x there
    model.graph.node.insert(0, helper.make_node("Mul", ["x", "nothing"], ["zero"]))
    model.graph.node[-1].input[0] = "zero"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.float32), "nothing"))
    onnx.save(model, path)
    found = plan(open_session(path, device="cpu"), bitwise=False)
    assert {one.size: one.certificate for one in found.certificate.sizes}[4] == "0 ulp"
    assert (found.bitwise, found.certificate.overall) == (False, "0 ulp")


def test_a_model_that_feels_what_is_left_over_in_a_batch_is_found_out(tmp_path: Path) -> None:
    """No instance that is compared is beyond 1e30: only what is left in the rows below shows it."""
    found = plan(open_session(save_feeling_overflow(tmp_path / "m.onnx"), device="cpu"), bitwise=False)
    assert found.sizes == (1,)
    assert {one.certificate for one in found.certificate.sizes} == {"off"}


def test_a_size_that_does_not_pay_is_off_and_says_so(odd_three: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.batching._pays", lambda *_: False)
    found = plan(odd_three, bitwise=False)
    assert {(one.certificate, one.reason) for one in found.certificate.sizes} == {
        ("off", "it takes as long as its instances one by one")
    }
    assert found.reason == "a batch of 2: it takes as long as its instances one by one"


@pytest.mark.parametrize("sizes", [(1, 16), (1, 2, 8), (1, 3, 4, 16), (1,)])
def test_in_whatever_sizes_there_are_an_answer_is_the_one_alone(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """Numbers without a size of their own run above old instances in the next larger one."""
    session = open_session(tiny_model().save(tmp_path / "m.onnx"), device="cpu")
    batches, rng = Batches(session, sizes), np.random.default_rng(13)
    batches.prepare()
    for number in itertools.chain(range(1, batches.largest + 1), (1, batches.largest, 1)):
        instances = rng.normal(size=(number, 4)).astype(np.float32)
        together = batches.compute([instance.tobytes() for instance in instances])[0].copy()
        for row, instance in zip(together, instances, strict=True):
            session.input[0] = instance
            session.run()
            assert row.tobytes() == session.outputs[0][0].tobytes()


def test_the_certificate_is_json_as_it_stands(odd_three: Session) -> None:
    document = msgspec.json.decode(msgspec.json.encode(plan(odd_three, bitwise=False)))
    assert document["certificate"]["overall"].endswith(" ulp")
    assert [one["size"] for one in document["certificate"]["sizes"]] == list(SIZES)


def test_bitwise_is_what_is_served_unless_it_is_turned_off() -> None:
    assert read_settings([]).bitwise
    assert read_settings(["--bitwise"]).bitwise
    assert not read_settings(["--no-bitwise"]).bitwise
