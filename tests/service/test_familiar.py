"""Requests that differ in their numbers only are read as any others, but quicker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import RequestError
from service.protocols.contract import Question
from service.protocols.open_inference.contract import OpenInference
from service.repository import Opening, ServedModel, find_places, open_place
from tests.service.tiny_models import tiny_model, write_tiny_bundle

SIZE = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    root: Path = tmp_path_factory.mktemp("models")
    write_tiny_bundle(root, tiny_model((SIZE,)))
    return open_place(find_places(root).places["digits"][0], Opening(device="cpu"), root)


def write(numbers: str, **more: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, SIZE], "datatype": "FP32", "data": "@"}
    return json.dumps({"inputs": [tensor], **more}).replace('"@"', numbers).encode()


def seen(model: ServedModel, **more: Any) -> OpenInference:
    """A contract that has seen requests of this kind."""
    contract = OpenInference(model)
    assert contract.try_read(Question(write("[1,2,3,4]", **more))) is not None
    assert contract._familiar._known
    return contract


pieces = st.sampled_from(
    [
        "1",
        "-0.0",
        "2.5e3",
        "1e39",
        "1e999",
        "NaN",
        "null",
        "true",
        '"1"',
        "[1]",
        "[",
        "]",
        "{}",
        ",",
        " ",
        "",
        "1 2",
        "]]",
        '"data"',
    ]
)
texts = st.lists(pieces, min_size=0, max_size=6).map(lambda words: "[" + ",".join(words) + "]")
odd_texts = texts | st.lists(pieces, max_size=8).map("".join) | st.text(max_size=12)


@given(numbers=odd_texts)
def test_whatever_stands_in_the_place_of_the_numbers_is_read_as_by_who_sees_it_first(
    model: ServedModel, numbers: str
) -> None:
    question = Question(write(numbers))
    work = seen(model).try_read(question)
    if work is None:
        return
    first = OpenInference(model).read(question)
    assert [bytes(one) for one in work.instances] == [bytes(one) for one in first.instances]


@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=SIZE, max_size=SIZE))
def test_good_numbers_are_read_to_the_bit(model: ServedModel, values: list[float]) -> None:
    work = seen(model).try_read(Question(write(json.dumps(values))))
    assert work is not None
    assert work.instances[0] == np.array(values, np.float32).tobytes()


def test_what_else_was_asked_for_is_remembered_with_it(model: ServedModel) -> None:
    more = {"parameters": {"timeout": 5_000_000}, "outputs": [{"name": "scores", "parameters": {"binary_data": True}}]}
    outputs = (np.ones((1, 3), np.float32),)
    question = Question(write("[5,6,7,8]", **more))
    first, familiar = OpenInference(model).try_read(question), seen(model, **more).try_read(question)
    assert first is not None
    assert familiar is not None
    assert familiar.timeout_seconds == first.timeout_seconds == 5
    assert familiar.write(outputs) == first.write(outputs)


def test_an_id_is_echoed_each_time(model: ServedModel) -> None:
    contract = OpenInference(model)
    for name in ("one", "two", "one"):
        work = contract.try_read(Question(write("[1,2,3,4]", id=name)))
        assert work is not None
        assert json.loads(work.write((np.ones((1, 3), np.float32),)).body)["id"] == name


def test_what_was_refused_is_not_remembered(model: ServedModel) -> None:
    contract = OpenInference(model)
    wrong = Question(write("[1,2,3]"))
    assert contract.try_read(wrong) is None
    with pytest.raises(RequestError):
        contract.read(wrong)
    assert not contract._familiar._known


def test_no_more_than_so_many_are_kept(model: ServedModel) -> None:
    contract = OpenInference(model)
    for number in range(600):
        contract.try_read(Question(write("[1,2,3,4]", parameters={f"p{number}": 1})))
    assert 0 < len(contract._familiar._known) <= 256
