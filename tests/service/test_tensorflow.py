"""TensorFlow Serving's REST API: rows and columns say the same, and what is wrong is named."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from service.bundle import Feature, Signature, TensorSpec
from service.errors import RequestError
from service.protocols.contract import Headers, Question
from service.protocols.tensorflow import TensorFlowServing, VersionStatus, describe_metadata, describe_status
from service.repository import ServedModel
from tests.service.served_models import ask, read, run, serve, serve_file
from tests.service.tiny_models import TOLERANCE, TinyModel, tiny_model, to_model

FEATURES = (Feature(name="length"), Feature(name="colour", categories=("red", "blue")), Feature(name="petal: width"))
FLOAT32: Any = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((4,)), tmp_path_factory.mktemp("flat"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((2, 2, 3)), tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """So many numbers that they are read the quickest way."""
    return serve(tiny_model((2, 100)), tmp_path_factory.mktemp("long"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((4,), features=FEATURES), tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def two_outputs(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """y is the first of two values, z both of them doubled."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["y"], axis=1),
        helper.make_node("Add", ["x", "x"], ["z"]),
    ]
    batch = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])
    outputs = [
        helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"]),
    ]
    path = tmp_path_factory.mktemp("two") / "model.onnx"
    onnx.save(to_model(nodes, [batch], outputs, [numpy_helper.from_array(np.array(0), "first")]), path)
    specs = (TensorSpec(name="z", dtype="float32", shape=(2,)), TensorSpec(name="y", dtype="float32", shape=()))
    signature = Signature(input=TensorSpec(name="x", dtype="float32", shape=(2,)), outputs=specs)
    return serve_file(path, signature)


def post(model: ServedModel, body: Any) -> tuple[int, Any]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = ask(model, TensorFlowServing(model), text)
    return answer.status, json.loads(answer.body)


def test_rows_are_answered_by_rows(flat: ServedModel) -> None:
    instances = np.random.default_rng(3).normal(size=(3, 4)).astype(np.float32)
    status, answer = post(flat, {"instances": instances.tolist()})
    oracle = [tiny_model((4,)).oracle(instance) for instance in instances]
    assert status == 200
    assert list(answer) == ["predictions"]
    np.testing.assert_allclose(answer["predictions"], oracle, atol=TOLERANCE)


def test_columns_are_answered_by_columns(flat: ServedModel) -> None:
    _, rows = post(flat, {"instances": [[1, 2, 3, 4.5], [0, 0, 0, 0]]})
    for inputs in ([[1, 2, 3, 4.5], [0, 0, 0, 0]], {"x": [[1, 2, 3, 4.5], [0, 0, 0, 0]]}):
        status, columns = post(flat, {"inputs": inputs, "signature_name": "serving_default"})
        assert (status, columns) == (200, {"outputs": rows["predictions"]})


def test_several_outputs_are_named(two_outputs: ServedModel) -> None:
    assert [spec.name for spec in two_outputs.predictor.signature.outputs] == ["z", "y"]
    _, rows = post(two_outputs, {"instances": [{"x": [1, 2]}, {"x": [3, 4]}]})
    assert rows == {"predictions": [{"z": [2.0, 4.0], "y": 1.0}, {"z": [6.0, 8.0], "y": 3.0}]}
    _, columns = post(two_outputs, {"inputs": [[1, 2], [3, 4]]})
    assert columns == {"outputs": {"z": [[2.0, 4.0], [6.0, 8.0]], "y": [1.0, 3.0]}}


def test_numbers_are_written_as_the_shortest_float32(two_outputs: ServedModel) -> None:
    answer = ask(two_outputs, TensorFlowServing(two_outputs), b'{"instances":[[0.1,16777216]]}')
    assert answer.body == b'{"predictions":[{"z":[0.2,33554432.0],"y":0.1}]}'


@given(instances=arrays.arrays("float32", st.tuples(st.integers(1, 4), st.just(2), st.just(100)), elements=FLOAT32))
def test_the_quickest_way_reads_the_same_bits(long: ServedModel, instances: Any) -> None:
    contract, expected = TensorFlowServing(long), [instance.tobytes() for instance in instances]
    spaced = json.dumps({"instances": instances.tolist()}, indent=1).encode()
    for body in (spaced, b'{"instances":' + orjson.dumps(instances, option=orjson.OPT_SERIALIZE_NUMPY) + b"}"):
        quick = contract.try_read(Question(body))
        assert quick is not None or np.abs(instances).max() > 1e30  # which may overflow, and are looked at in a thread
        quick = quick or contract.read(Question(body))
        named = body.replace(b'"instances"', b'"signature_name":"serving_default","instances"')
        assert list(quick.instances) == expected == list(contract.read(Question(named)).instances)


@given(instances=arrays.arrays("float32", st.tuples(st.integers(1, 4), *map(st.just, (2, 2, 3))), elements=FLOAT32))
def test_an_image_reads_the_same_in_every_form(image: ServedModel, instances: Any) -> None:
    contract, expected = TensorFlowServing(image), [instance.tobytes() for instance in instances]
    nested, flattened = instances.tolist(), instances.reshape(len(instances), -1).tolist()
    for form in (
        {"instances": nested},
        {"instances": flattened},
        {"instances": [{"x": each} for each in nested]},
        {"inputs": nested},
        {"inputs": {"x": nested}},
    ):
        assert list(read(contract, json.dumps(form).encode()).instances) == expected


rows_of_the_table = st.lists(st.tuples(FLOAT32, st.sampled_from(["red", "blue"]), FLOAT32), min_size=1, max_size=4)


@given(rows=rows_of_the_table)
def test_a_table_reads_as_our_own_contract_reads_each_row(table: ServedModel, rows: list[tuple[Any, ...]]) -> None:
    own = table.predictor.reader.pack
    expected = [own(json.dumps({"instance": row}).encode()) for row in rows]
    names = [feature.name for feature in FEATURES]
    named = [dict(reversed(list(zip(names, row, strict=True)))) for row in rows]
    columns = dict(reversed(list(zip(names, map(list, zip(*rows, strict=True)), strict=True))))
    for form in ({"instances": rows}, {"instances": named}, {"inputs": columns}, {"inputs": {"x": rows}}):
        assert list(read(TensorFlowServing(table), json.dumps(form).encode()).instances) == expected


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        (b"", "", "the body is empty"),
        (b'{"instances":[[1,2,3,4]', "", "breaks off at byte 23"),
        (b'{"instances":[[1,2,3,4],]}', "", "at byte 24"),
        (b"[" * 100_000, "", "nested too deeply"),
        (b"[[1,2,3,4]]", "", "not an object"),
        (b"{}", "", "exactly one of the keys 'instances', 'inputs', got an empty object"),
        (b'{"instances":[[1,2,3,4]],"inputs":[[1,2,3,4]]}', "", "exactly one of the keys"),
        (b'{"instances":[[1,2,3,4]],"instances":[[1,2,3,4]]}', "instances", "more than once"),
        (b'{"instance":[[1,2,3,4]]}', "instance", "Did you mean 'instances'?"),
        (b'{"instances":[[1,2,3,4]],"signature_name":"other"}', "signature_name", "'serving_default'"),
        (b'{"instances":[[1,2,3,4]],"signature_name":["serving_default"]}', "signature_name", "a list of 1"),
        (b'{"instances":[]}', "instances", "one or more instances, got a list of 0"),
        (b'{"instances":{"x":1}}', "instances", "got an object"),
        (b'{"instances":[[1,2,3,4],[1,2,3]]}', "instances[1]", "a list of 4 numbers, got a list of 3"),
        (b'{"instances":[[1,2,null,4]]}', "instances[0][2]", "a number, got null"),
        (b'{"instances":[[1,2,true,4]]}', "instances[0][2]", "a number, got true"),
        (b'{"instances":[[1,2,"3",4]]}', "instances[0][2]", "a number, got the string '3'"),
        (b'{"instances":[[1,2,NaN,4]]}', "instances[0][2]", "got NaN"),
        (b'{"instances":[[1,2,1e999,4]]}', "instances[0][2]", "got 1e999"),
        (b'{"instances":[[1,2,1e39,4]]}', "instances[0][2]", "finite as float32, got 1e+39"),
        (b'{"instances":[[1,2,' + b"9" * 400 + b",4]]}", "instances[0][2]", "finite as float32"),
        (b'{"instances":[{"y":[1,2,3,4]}]}', "instances[0]['y']", "is no known input; expected one of 'x'"),
        (b'{"instances":[{"x":[1,2,3,4]},[1,2,3,4]]}', "instances[1]", "like the first instance"),
        (b'{"instances":[{"x":[1,2,3,4],"x":[1,2,3,4]}]}', "instances[0]['x']", "more than once"),
        (b'{"inputs":{"z":[[1,2,3,4]]}}', "inputs['z']", "no known input"),
        (b'{"inputs":{}}', "inputs", "an empty object"),
        (b'{"inputs":{"x":[[1,2,3]]}}', "inputs['x'][0]", "a list of 3"),
        (b'{"instances":[{"b64":"AAAA"}]}', "instances[0]['b64']", "no known input"),
    ],
)
def test_what_is_wrong_is_named(flat: ServedModel, body: bytes, field: str, said: str) -> None:
    status, answer = post(flat, body)
    assert status == 400
    assert said in answer["error"]
    assert answer.get("field", "") == field


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ([1, "red"], "instances[0]", "expected 3 values ('length', 'colour', 'petal: width'), got a list of 2"),
        ([1, "rad", 2], "instances[0][1]", "Did you mean 'red'?"),
        ([1, 0, 2], "instances[0][1]", "one of the words 'red', 'blue'"),
        (["red", "red", 2], "instances[0][0]", "a number, got the string 'red'"),
        ({"lenght": 1, "colour": "red", "petal: width": 2}, "instances[0]['lenght']", "Did you mean 'length'?"),
        ({"length": 1, "colour": "red"}, "instances[0]", "none named 'petal: width'"),
        ({"length": None, "colour": "red", "petal: width": 2}, "instances[0]['length']", "a number, got null"),
        (7, "instances[0]", "an object of named features, got 7"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(table: ServedModel, row: Any, field: str, said: str) -> None:
    status, answer = post(table, {"instances": [row]})
    assert (status, answer["field"]) == (400, field)
    assert said in answer["error"]


def test_a_missing_column_is_named(table: ServedModel) -> None:
    status, answer = post(table, {"inputs": {"length": [1], "colour": ["red"]}})
    assert status == 400
    assert "none named 'petal: width'" in answer["error"]
    _, answer = post(table, {"inputs": {"length": [1, 2], "colour": ["red"], "petal: width": [1, 2]}})
    assert answer["field"] == "inputs['colour']"


def test_an_answer_that_is_not_finite_is_refused(flat: ServedModel) -> None:
    status, answer = post(flat, {"instances": [[0, 0, 0, 0], [3e38, 3e38, 3e38, 3e38]]})
    assert status == 400
    assert "overflows on instance 1: scores[" in answer["error"]


def test_no_message_repeats_a_request(flat: ServedModel) -> None:
    for body in (
        {"instances": ["z" * 9999]},
        {"z" * 9999: 1},
        {"instances": [{"z" * 9999: 1}]},
        {"inputs": "z" * 9999},
    ):
        answer = ask(flat, TensorFlowServing(flat), json.dumps(body).encode())
        assert answer.status == 400
        assert len(answer.body) < 700


def test_integers_are_not_made_of_floats(tmp_path: Path) -> None:
    model = serve(tiny_model((2,), dtype="int64"), tmp_path)
    assert post(model, {"instances": [[1, 2]]})[0] == 200
    status, answer = post(model, {"instances": [[1, 2.0]]})
    assert (status, answer["field"], answer["expected"]) == (400, "instances[0][1]", "an integer")


def test_another_media_type_is_refused(flat: ServedModel) -> None:
    contract = TensorFlowServing(flat)
    assert ask(flat, contract, b'{"instances":[[1,2,3,4]]}', Headers(content_type=b"text/csv")).status == 415
    assert (
        ask(
            flat, contract, b'{"instances":[[1,2,3,4]]}', Headers(content_type=b"application/json; charset=utf-8")
        ).status
        == 200
    )


@pytest.mark.parametrize("key", [b'"inst ances"', b'"instance"', b'"instances" 1'])
def test_the_quickest_way_takes_no_other_key(long: ServedModel, key: bytes) -> None:
    body = b"{%s:%s}" % (key, json.dumps([[0.5] * 200]).encode())
    assert ask(long, TensorFlowServing(long), body).status == 400


def test_a_long_body_is_not_read_on_the_event_loop(flat: ServedModel) -> None:
    body = json.dumps({"instances": [[0.25, 1, 2, 3]] * 5000}).encode()
    contract = TensorFlowServing(flat)
    assert contract.try_read(Question(body)) is None
    assert len(contract.read(Question(body)).instances) == 5000


GOOD = [
    b'{"instances":[[1,2.5,-3,4e2],[0.1,0,0,1]]}',
    b'{"signature_name":"serving_default","inputs":{"x":[[1,2.5,-3,4e2]]}}',
    b'{"instances":[{"length":1.5,"colour":"red","petal: width":2}]}',
    b'{"instances":' + json.dumps([[0.5] * 200]).encode() + b"}",
]


@given(data=st.data())
def test_a_mutated_body_is_read_alike_or_refused(
    flat: ServedModel, table: ServedModel, long: ServedModel, data: st.DataObject
) -> None:
    body = bytearray(data.draw(st.sampled_from(GOOD)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(list(b'[]{},:"0.e-N '))
        ).to_bytes()
    for model in (flat, table, long):
        contract = TensorFlowServing(model)
        with contextlib.suppress(RequestError):
            work = read(contract, bytes(body))
            size = np.prod(model.predictor.signature.input.shape) * 4
            assert {len(instance) for instance in work.instances} == {size}
            assert all(np.isfinite(np.frombuffer(instance, "float32")).all() for instance in work.instances)


def test_the_status_document_is_as_tensorflow_serving_writes_it() -> None:
    statuses = [
        VersionStatus(version="4", state="AVAILABLE"),
        VersionStatus(version="3", state="END", error_code="NOT_FOUND", error_message="it is gone"),
    ]
    assert describe_status(statuses) == {
        "model_version_status": [
            {"version": "4", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
            {"version": "3", "state": "END", "status": {"error_code": "NOT_FOUND", "error_message": "it is gone"}},
        ]
    }


def test_the_metadata_document_is_as_tensorflow_serving_writes_it(image: ServedModel) -> None:
    document = describe_metadata(image)
    assert document["model_spec"] == {"name": "digits", "signature_name": "", "version": "4"}
    definition = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert definition["method_name"] == "tensorflow/serving/predict"
    sizes = [{"size": size, "name": ""} for size in ("-1", "2", "2", "3")]
    shape = {"dim": sizes, "unknown_rank": False}
    assert definition["inputs"] == {"x": {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": "x"}}
    assert list(definition["outputs"]) == ["scores"]


def test_a_bare_model_has_no_version(tmp_path: Path) -> None:
    tiny: TinyModel = tiny_model()
    model = serve_file(tiny.save(tmp_path / "model.onnx"), tiny.signature, version=None)
    assert describe_metadata(model)["model_spec"] == {"name": "digits", "signature_name": ""}
    assert run(model, read(TensorFlowServing(model), b'{"instances":[[1,2,3,4]]}'))[0].shape == (1, 3)
