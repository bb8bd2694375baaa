"""The Open Inference Protocol: the same bits in every form, and no wrong request that is answered."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.bundle import Signature, TensorSpec
from service.errors import InstanceInvalid, Overloaded, RequestError, RequestInvalid
from service.protocols.answer import Answer
from service.protocols.contract import Headers, Outputs, Question, Work
from service.protocols.open_inference.contract import OpenInference
from service.protocols.open_inference.documents import (
    Duration,
    Statistics,
    describe_config,
    describe_metadata,
    describe_server,
    describe_statistics,
    index_entry,
    list_statistics,
)
from service.protocols.open_inference.writing import classify
from service.repository import ServedModel
from tests.service import served_models
from tests.service.tiny_models import TOLERANCE, TinyModel, tiny_model, to_model

Array = NDArray[Any]
OCTETS = b"application/octet-stream"
SAGEMAKER = b"application/vnd.sagemaker-triton.binary+json"
VERTEX = b"application/vnd.vertex-ai-triton.binary+json"
IMAGE = (2, 3)
LONG = (160,)  # more than simdjson's threshold


class Served:
    """A tiny model with its protocol, asked as a lane asks it, without batching."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.spec = model.predictor.signature.input
        self.contract = OpenInference(model)

    def ask(self, question: Question) -> Answer:
        try:
            work = self.contract.try_read(question) or self.contract.read(question)
            return work.write(self.compute(work))
        except RequestError as err:
            return self.contract.refuse(err)

    def compute(self, work: Work) -> Outputs:
        return served_models.run(self.model, work)

    def refusal(self, question: Question) -> RequestError:
        assert self.contract.try_read(question) is None
        with pytest.raises(RequestError) as caught:
            self.contract.read(question)
        assert self.contract.refuse(caught.value).status in {400, 415}
        return caught.value


def serve(tiny: TinyModel, root: Path) -> Served:
    return Served(served_models.serve(tiny, root))


@pytest.fixture(scope="module")
def tiny() -> TinyModel:
    return tiny_model((4,), num_labels=2, labels=("no", "yes"))


@pytest.fixture(scope="module")
def served(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(tiny, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Served]:
    """A model of each dtype and of each kind of shape."""
    kinds = [((4,), "float32"), (IMAGE, "float64"), (IMAGE, "int64"), (LONG, "float32"), ((10, 16), "float64")]
    return {
        f"{dtype} {shape}": serve(tiny_model(shape, dtype=dtype, scale=1e-3), tmp_path_factory.mktemp("models"))
        for shape, dtype in kinds
    }


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A bare model, so without a version, of two outputs: x, and its largest value as [1, 1]."""
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("ReduceMax", ["x", "axes"], ["row"], keepdims=1),
        helper.make_node("Unsqueeze", ["row", "axes"], ["largest"]),
    ]
    axes = onnx.numpy_helper.from_array(np.array([1], np.int64), "axes")
    instance = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    outputs = [
        helper.make_tensor_value_info("same", TensorProto.FLOAT, ["batch", 3]),
        helper.make_tensor_value_info("largest", TensorProto.FLOAT, ["batch", 1, 1]),
    ]
    path = tmp_path_factory.mktemp("models") / "forked.onnx"
    onnx.save(to_model(nodes, [instance], outputs, [axes]), path)
    signature = Signature(
        input=TensorSpec(name="x", dtype="float32", shape=(3,)),
        outputs=(
            TensorSpec(name="same", dtype="float32", shape=(3,)),
            TensorSpec(name="largest", dtype="float32", shape=(1, 1)),
        ),
    )
    return Served(served_models.serve_file(path, signature, version=None))


# --- what is sent ----------------------------------------------------------------------------------------------------


def tensor(spec: TensorSpec, num_instances: int = 1, **members: Any) -> dict[str, Any]:
    datatype = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}[spec.dtype]
    return {"name": "x", "shape": [num_instances, *spec.shape], "datatype": datatype, **members}


def as_json(document: Any, **headers: bytes) -> Question:
    return Question(json.dumps(document).encode(), Headers(content_type=b"application/json", **headers))


def as_bytes(document: Any, tail: bytes) -> Question:
    head = json.dumps(document).encode()
    return Question(head + tail, Headers(content_type=OCTETS, header_length=b"%d" % len(head)))


def as_cloud(question: Question, cloud_type: bytes) -> Question:
    length = question.headers.header_length
    return Question(question.body, Headers(content_type=cloud_type + b";json-header-size=" + length))


def numbers(values: Any, **members: Any) -> dict[str, Any]:
    """A request to the model of four values, with changes to its input."""
    spec = TensorSpec(name="x", dtype="float32", shape=(4,))
    return {"inputs": [{**tensor(spec, 1, data=values), **members}]}


GOOD = numbers([1, 2, 3, 4])


def all_forms(spec: TensorSpec, instances: Array) -> Iterator[Question]:
    """Every way to send the same instances."""
    num = len(instances)
    for data in (instances.tolist(), instances.ravel().tolist()):
        document = {"inputs": [tensor(spec, num, data=data)]}
        yield as_json(document)
        yield as_json({"id": "1", **document, "parameters": {"priority": 1}, "more": None})
        yield Question(json.dumps(document, separators=(",", ":")).encode(), Headers(content_type=OCTETS))
    sized = tensor(spec, num, parameters={"binary_data_size": instances.nbytes})
    yield (binary := as_bytes({"inputs": [sized]}, instances.tobytes()))
    yield as_cloud(binary, SAGEMAKER)
    yield as_cloud(binary, VERTEX)
    if num == 1:
        yield (raw := Question(instances.tobytes(), Headers(content_type=OCTETS, header_length=b"0")))
        yield as_cloud(raw, SAGEMAKER)


# --- reading ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_instance_is_the_same_bits_in_every_form(readers: dict[str, Served], data: st.DataObject) -> None:
    served = readers[data.draw(st.sampled_from(sorted(readers)))]
    spec = served.spec
    limits: Any = {} if spec.dtype == "int64" else {"allow_nan": False, "allow_infinity": False}
    shape = (data.draw(st.integers(1, 3)), *spec.shape)
    instances = data.draw(arrays.arrays(spec.dtype, shape, elements=arrays.from_dtype(np.dtype(spec.dtype), **limits)))
    for question in all_forms(spec, instances):
        quick, thorough = served.contract.try_read(question), served.contract.read(question)
        for work in (quick or thorough, thorough):
            assert [bytes(row) for row in work.instances] == [row.tobytes() for row in instances]


def test_usual_requests_are_read_quickly(readers: dict[str, Served]) -> None:
    rng = np.random.default_rng(3)
    for served in readers.values():
        instances = (100 * rng.normal(size=(1, *served.spec.shape))).astype(served.spec.dtype)
        for question in all_forms(served.spec, instances):
            if b"more" not in question.body:
                assert served.contract.try_read(question) is not None


def test_a_long_body_is_left_to_a_thread(readers: dict[str, Served]) -> None:
    served = readers["float32 (160,)"]
    question = as_json({"inputs": [tensor(served.spec, 200, data=[0.1] * 32_000)]})
    assert served.contract.try_read(question) is None
    assert len(served.contract.read(question).instances) == 200


# Pieces that a mutation puts in: those that JSON, or the protocol, is about.
PIECES = [
    *(b"", b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"1", b"0", b"-", b"1e39", b"NaN", b"null", b"true", b"\n"),
    *(
        b'"data"',
        b'"data":[1,2,3,4],',
        b'"name":"x",',
        b'"x":',
        b"\xff",
        b"\xef\xbb\xbf",
        b"[1,2,3,4]",
        b"[[1,2],[3,4]]",
    ),
]
MUTATED = [
    b'{"id":":","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"scores"}]}',
    b'{"inputs": [{"name": "x", "shape": [1, 4], "data": [[1, 2.5, 3, 4]], "datatype": "FP32"}], "parameters":{"a":1}}',
    b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}' + bytes(16),
]


@settings(max_examples=400, deadline=None)
@example(body=MUTATED[0], place=0, length=0, piece=b"")
@given(
    body=st.sampled_from(MUTATED),
    place=st.integers(0, 130),
    length=st.integers(0, 12),
    piece=st.sampled_from(PIECES) | st.binary(max_size=3),
)
def test_a_mutated_body_is_refused_or_read_as_the_thorough_way_reads_it(
    served: Served, body: bytes, place: int, length: int, piece: bytes
) -> None:
    mutated = body[:place] + piece + body[place + length :]
    length_of_json = b"%d" % (len(mutated) - 16) if body is MUTATED[2] and len(mutated) > 16 else b""
    question = Question(mutated, Headers(content_type=b"application/json", header_length=length_of_json))
    quick, thorough = served.contract.try_read(question), read_thoroughly(served, question)
    if quick is not None:
        assert isinstance(thorough, Work), f"the thorough way refuses: {thorough}"
        assert list(quick.instances) == list(thorough.instances)
        assert quick.timeout_seconds == thorough.timeout_seconds
        assert quick.write(served.compute(quick)) == thorough.write(served.compute(thorough))


def read_thoroughly(served: Served, question: Question) -> Work | RequestError:
    """As `read`, but without looking if the quick way does."""
    blind = OpenInference(served.model)
    blind._try_document = lambda _: None
    try:
        return blind.read(question)
    except RequestError as err:
        return err


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(
    key=st.sampled_from(["name", "shape", "datatype", "data", "parameters", "id", "inputs", "outputs", "timeout"]),
    value=json_values,
)
def test_any_value_anywhere_is_read_or_refused(served: Served, key: str, value: Any) -> None:
    if key in {"id", "inputs", "outputs"}:
        document = {**GOOD, key: value}
    else:
        document = {**GOOD, "parameters": {key: value}} if key == "timeout" else numbers([1, 2, 3, 4], **{key: value})
    question = as_json(document)
    quick, thorough = served.contract.try_read(question), read_thoroughly(served, question)
    assert quick is None or isinstance(thorough, Work)
    if isinstance(thorough, Work):
        assert served.ask(question).status == 200
    else:
        assert len(str(thorough)) < 400


def test_a_second_data_is_not_taken_for_the_first(served: Served) -> None:
    body = json.dumps(GOOD).encode().replace(b"}]", b', "data": [9, 9, 9, 9]}]')
    assert served.refusal(Question(body)).field == "inputs[0].data"


def test_an_escaped_colon_hides_no_second_key(served: Served) -> None:
    body = json.dumps(GOOD).encode().replace(b"{", b'{"id": "\\u003a", "id": "\\u003a", ', 1)
    assert served.refusal(Question(body)).field == "id"


def test_data_that_is_hidden_from_the_quick_way_is_still_seen(served: Served) -> None:
    sized = tensor(served.spec, data=[], parameters={"binary_data_size": 16})
    assert "got both" in str(served.refusal(as_bytes({"id": "data", "inputs": [sized]}, bytes(16))))


@pytest.mark.parametrize(
    "data",
    [
        [[*range(159)], 159],
        [[*range(80)], [*range(80, 160)]],
        [*range(159), [159]],
        [[[*range(160)]]],
        [[*range(159), [159]]],
        [*range(159), True],
        [*range(159)],
        [[*range(161)]],
        [[*range(159), 1e39]],
        {"data": [*range(160)]},
    ],
)
def test_long_lists_are_read_as_strictly_as_short_ones(readers: dict[str, Served], data: Any) -> None:
    served = readers["float32 (160,)"]
    assert served.refusal(as_json({"inputs": [tensor(served.spec, data=data)]})).field.startswith("inputs[0].data")


def test_data_among_the_parameters_is_not_taken_for_the_tensor(served: Served) -> None:
    tensor_without = {**tensor(served.spec), "parameters": {"data": [1, 2, 3, 4]}}
    assert "either `data` or" in str(served.refusal(as_json({"inputs": [tensor_without]})))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty"),
        (b'{"inputs":[', "breaks off at byte 11"),
        (b'{"inputs":[1,]}', "at byte 13"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"id":"\xff"}', "not UTF-8: byte 7"),
        (b"[" * 250_000, "nested too deeply"),
        (b'{"inputs":[{"data":' + b"[" * 250_000, "nested too deeply"),
    ],
)
def test_malformed_json_is_refused_with_its_place(served: Served, body: bytes, said: str) -> None:
    assert said in str(served.refusal(Question(body)))


@pytest.mark.parametrize(
    ("document", "field", "said"),
    [
        ([], "", "expected an object, got a list of 0"),
        ({"input": []}, "inputs", "got only 'input'"),
        ({"inputs": []}, "inputs", "expected the input 'x' once, got no input"),
        ({"inputs": {}}, "inputs", "expected a list, got an object"),
        ({"inputs": GOOD["inputs"] * 2}, "inputs", "more than once"),
        ({**GOOD, "id": 7}, "id", "expected a string, got 7"),
        ({**GOOD, "id": "\ud800"}, "id", "half a surrogate pair"),
        (numbers([1, 2, 3, 4], name="xs"), "inputs[0].name", "Did you mean 'x'?"),
        (numbers([1, 2, 3, 4], datatype="fp32"), "inputs[0].datatype", "Did you mean 'FP32'?"),
        (numbers([1, 2, 3, 4], datatype="FP64"), "inputs[0].datatype", "expected FP32, which is the model's, got FP64"),
        (numbers([1, 2, 3, 4], datatype="BYTES"), "inputs[0].datatype", "got BYTES"),
        (numbers([1, 2, 3, 4], shape=[4]), "inputs[0].shape", "expected [n, 4] with n ≥ 1, got [4]"),
        (numbers([], shape=[0, 4]), "inputs[0].shape", "got [0, 4]"),
        (numbers([1, 2, 3, 4], shape=[-1, 4]), "inputs[0].shape", "got [-1, 4]"),
        (numbers([1, 2, 3, 4], shape=[2**60, 2**4]), "inputs[0].shape", "got [1152921504606846976, 16]"),
        (numbers([1, 2, 3, 4], shape=[2**62, 4]), "inputs[0].shape", "got [4611686018427387904, 4]"),
        (numbers([1, 2, 3, 4], shape=[10**9, 4]), "inputs[0].data", "a list of 4000000000 numbers"),
        (numbers([1, 2, 3, 4], shape=[1.0, 4]), "inputs[0].shape", "got [1.0, 4]"),
        (numbers([1, 2, 3, 4], shape=[True, 4]), "inputs[0].shape", "got [true, 4]"),
        (numbers([1, 2, 3, 4], shape=["1", 4]), "inputs[0].shape", "the string"),
        (numbers([1, 2, 3]), "inputs[0].data", "expected a list of 4 numbers, or nested as 1 × 4, got a list of 3"),
        (numbers([[1, 2, 3]]), "inputs[0].data[0]", "expected a list of 4 numbers, got a list of 3"),
        (numbers([1, 2, 3, True]), "inputs[0].data[3]", "expected a number, got true"),
        (numbers([1, 2, 3, 1e39]), "inputs[0].data[3]", "finite as float32, got 1e+39"),
        (numbers([1, 2, 3, float("nan")]), "inputs[0].data[3]", "finite as float32, got NaN"),
        (numbers([[1, 2, "3", 4]]), "inputs[0].data[0][2]", "got the string '3'"),
        (numbers([1, 2, 3, 4], parameters={"binary_data_size": 16}), "inputs[0]", "got both"),
        (numbers(None), "inputs[0]", "got neither"),
        (
            numbers([1, 2, 3, 4], parameters={"shared_memory_region": "r"}),
            "inputs[0].parameters.shared_memory_region",
            "not offered",
        ),
        ({**GOOD, "outputs": [{"name": "score"}]}, "outputs[0].name", "Did you mean 'scores'?"),
        ({**GOOD, "outputs": [{"name": "scores"}] * 2}, "outputs[1].name", "got 'scores' again"),
        ({**GOOD, "outputs": [{}]}, "outputs[0].name", "expected a string, got null"),
        (
            {**GOOD, "outputs": [{"name": "scores", "parameters": {"binary_data": 1}}]},
            "outputs[0].parameters.binary_data",
            "expected true or false, got 1",
        ),
        (
            {**GOOD, "outputs": [{"name": "scores", "parameters": {"classification": -1}}]},
            "outputs[0].parameters.classification",
            "got -1",
        ),
        ({**GOOD, "parameters": {"binary_data_output": "yes"}}, "parameters.binary_data_output", "true or false"),
        ({**GOOD, "parameters": {"timeout": -1}}, "parameters.timeout", "microseconds"),
        ({**GOOD, "parameters": {"timeout": True}}, "parameters.timeout", "got true"),
        ({**GOOD, "parameters": {"triton_enable": 1}}, "parameters.triton_enable", "starts with 'triton_'"),
        ({**GOOD, "parameters": {"sequence_id": 7}}, "parameters.sequence_id", "keeps nothing between requests"),
    ],
)
def test_a_wrong_request_is_refused_by_its_field(served: Served, document: Any, field: str, said: str) -> None:
    error = served.refusal(as_json(document))
    assert (error.field, said in str(error)) == (field, True), str(error)
    assert error.expected


@pytest.mark.parametrize("key", ["id", "name", "shape", "datatype", "data", "inputs", "a"])
def test_a_key_may_not_stand_twice(served: Served, key: str) -> None:
    body = json.dumps({**GOOD, "id": "1", "parameters": {"a": 1}})
    start = body.index(f'"{key}"')
    value = json.JSONDecoder().raw_decode(body[start + len(key) + 4 :])[0]
    twice = body[:start] + f'"{key}": {json.dumps(value)}, ' + body[start:]
    error = served.refusal(Question(twice.encode()))
    assert error.field.endswith(key)
    assert "once" in str(error)


@pytest.mark.parametrize("name", ["sequence_id", "sequence_start", "priority", "anything"])
def test_harmless_parameters_are_passed_over(served: Served, name: str) -> None:
    assert served.contract.try_read(as_json({**GOOD, "parameters": {name: 0}})) is not None


@pytest.mark.parametrize(("microseconds", "seconds"), [(0, None), (1, 1e-6), (2_500_000, 2.5), (None, None)])
def test_a_timeout_is_in_microseconds(served: Served, microseconds: int | None, seconds: float | None) -> None:
    document = {**GOOD, "parameters": {"timeout": microseconds}}
    assert served.contract.read(as_json(document)).timeout_seconds == seconds


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (b"-1", "expected a whole number of bytes, got -1"),
        (b"abc", "got abc"),
        (b"1.5", "got 1.5"),
        (b"1_0", "got 1_0"),
        (b"99999", "at most"),
        (b"99999999999999999999999999", "expected a whole number"),
    ],
)
def test_a_wrong_header_length_is_refused(served: Served, length: bytes, said: str) -> None:
    question = Question(json.dumps(GOOD).encode(), Headers(content_type=OCTETS, header_length=length))
    error = served.refusal(question)
    assert error.field == "inference-header-content-length"
    assert said in str(error)


@pytest.mark.parametrize(
    ("size", "tail", "said"),
    [
        (16, bytes(12), "4 bytes are missing"),
        (16, bytes(20), "4 bytes are left over"),
        (12, bytes(12), "expected 16, for float32 of shape [1, 4], got 12"),
        (-16, bytes(16), "expected a whole number of bytes, got -16"),
        (16.0, bytes(16), "expected a whole number of bytes, got 16.0"),
        (True, bytes(1), "expected a whole number of bytes, got true"),
        (2**70, bytes(16), "expected 16"),
        (16, np.array([1, 2, np.nan, 4], np.float32).tobytes(), "inputs[0][2]: expected a finite number, got nan"),
        (16, np.array([1, 2, 3, -np.inf], np.float32).tobytes(), "inputs[0][3]: expected a finite number, got -inf"),
    ],
)
def test_wrong_bytes_are_refused(served: Served, size: Any, tail: bytes, said: str) -> None:
    sized = tensor(served.spec, parameters={"binary_data_size": size})
    assert said in str(served.refusal(as_bytes({"inputs": [sized]}, tail)))


def test_bytes_behind_a_document_with_numbers_are_refused(served: Served) -> None:
    assert "4 bytes are left over" in str(served.refusal(as_bytes(GOOD, bytes(4))))


@pytest.mark.parametrize(("body", "said"), [(bytes(15), "16 bytes"), (bytes(32), "16 bytes"), (b"\xff" * 16, "finite")])
def test_a_wrong_raw_body_is_refused(served: Served, body: bytes, said: str) -> None:
    assert said in str(served.refusal(Question(body, Headers(content_type=OCTETS, header_length=b"0"))))


def test_bytes_without_a_length_are_refused_with_the_headers_name(served: Served) -> None:
    error = served.refusal(Question(bytes(16), Headers(content_type=OCTETS)))
    assert "inference-header-content-length" in str(error)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (b"application/json; charset=UTF-8", 200),
        (b"Application/JSON", 200),
        (b"", 200),
        (OCTETS, 200),
        (b"application/json; charset=utf-16", 415),
        (b"text/plain", 415),
        (b"application/x-www-form-urlencoded", 415),
        (SAGEMAKER, 400),
        (SAGEMAKER + b";json-header-size=x", 400),
    ],
)
def test_content_types_are_told_apart(served: Served, content_type: bytes, status: int) -> None:
    assert served.ask(Question(json.dumps(GOOD).encode(), Headers(content_type=content_type))).status == status


def test_two_lengths_that_differ_are_refused(served: Served) -> None:
    headers = Headers(content_type=SAGEMAKER + b";json-header-size=3", header_length=b"4")
    assert "the same length" in str(served.refusal(Question(bytes(16), headers)))


# --- writing ---------------------------------------------------------------------------------------------------------


INSTANCE = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)


def test_json_answers_hold_the_scores_bit_by_bit(served: Served, tiny: TinyModel) -> None:
    answer = served.ask(as_json({"id": "42", **numbers(INSTANCE.tolist())}))
    scores = served.compute(served.contract.read(as_json(numbers(INSTANCE.tolist()))))[0]
    read = json.loads(answer.body)
    (output,) = read.pop("outputs")
    assert read == {"model_name": "digits", "model_version": "4", "id": "42"}
    assert list(output) == ["name", "datatype", "shape", "data"]
    assert (output["name"], output["datatype"], output["shape"]) == ("scores", "FP32", [1, 2])
    assert np.array(output["data"], np.float32).tobytes() == scores.tobytes()
    assert np.allclose(output["data"], tiny.oracle(INSTANCE[0]), atol=TOLERANCE)
    assert (answer.status, answer.content_type, answer.headers) == (200, b"application/json", ())


def test_binary_requests_and_answers_have_the_lengths_of_the_published_example(tmp_path: Path) -> None:
    tiny = tiny_model((4,), num_labels=2)
    named = replace(tiny.signature, outputs=(TensorSpec(name="logits", dtype="float32", shape=(2,)),))
    contract = OpenInference(renamed(serve(tiny, tmp_path).model, named, "mnist_bn"))
    head = (
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}],'
        b'"parameters":{"binary_data_output":true}}'
    )
    assert len(head) == 135
    question = Question(head + INSTANCE.tobytes(), Headers(content_type=OCTETS, header_length=b"135"))
    work = contract.try_read(question)
    assert work is not None
    answer = work.write((np.array([[1.25, -0.5]], np.float32),))
    assert answer.headers == ((b"inference-header-content-length", b"143"),)
    assert answer.content_type == OCTETS
    assert answer.body == (
        b'{"model_name":"mnist_bn","model_version":"4","outputs":[{"name":"logits","datatype":"FP32","shape":[1,2],'
        b'"parameters":{"binary_data_size":8}}]}' + struct.pack("<2f", 1.25, -0.5)
    )
    assert len(answer.body) == 143 + 8


def renamed(model: ServedModel, signature: Signature, name: str) -> ServedModel:
    """The same model under another signature, of which only the names differ."""
    model.predictor._session.signature = signature
    return replace(model, name=name)


def read_binary(answer: Answer) -> tuple[dict[str, Any], dict[str, bytes]]:
    if answer.headers:
        ((_, length),) = answer.headers
    else:
        _, _, length = answer.content_type.partition(b";json-header-size=")
    head, tail = json.loads(answer.body[: int(length)]), answer.body[int(length) :]
    blobs = {}
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        blobs[output["name"]], tail = tail[:size], tail[size:]
    assert tail == b""
    return head, blobs


@pytest.mark.parametrize("content_type", [OCTETS, SAGEMAKER, VERTEX])
def test_a_raw_instance_gets_a_raw_answer(served: Served, tiny: TinyModel, content_type: bytes) -> None:
    question = Question(INSTANCE.tobytes(), Headers(content_type=OCTETS, header_length=b"0"))
    answer = served.ask(question if content_type == OCTETS else as_cloud(question, content_type))
    head, blobs = read_binary(answer)
    assert head["model_version"] == "4"
    assert np.allclose(np.frombuffer(blobs["scores"], np.float32), tiny.oracle(INSTANCE[0]), atol=TOLERANCE)
    assert answer.content_type.startswith(content_type)


def test_a_model_without_a_version_names_none(forked: Served) -> None:
    answer = json.loads(forked.ask(as_json({"inputs": [tensor(forked.spec, data=[1, 3, 2])]})).body)
    assert "model_version" not in answer
    assert "id" not in answer
    assert [(output["name"], output["shape"], output["data"]) for output in answer["outputs"]] == [
        ("same", [1, 3], [1.0, 3.0, 2.0]),
        ("largest", [1, 1, 1], [3.0]),
    ]


def test_outputs_come_as_asked_in_the_order_asked(forked: Served) -> None:
    wanted = [{"name": "largest", "parameters": {"binary_data": True}}, {"name": "same"}]
    document = {"inputs": [tensor(forked.spec, 2, data=[[1, 3, 2], [6, 5, 4]])], "outputs": wanted}
    head, blobs = read_binary(forked.ask(as_json(document)))
    assert [output["name"] for output in head["outputs"]] == ["largest", "same"]
    assert blobs == {"largest": struct.pack("<2f", 3, 6), "same": b""}
    assert head["outputs"][1]["data"] == [1.0, 3.0, 2.0, 6.0, 5.0, 4.0]


def test_an_output_may_be_json_where_the_others_are_binary(forked: Served) -> None:
    wanted = [{"name": "same"}, {"name": "largest", "parameters": {"binary_data": False}}]
    document = {"inputs": [tensor(forked.spec, data=[1, 3, 2])], "outputs": wanted}
    head, blobs = read_binary(forked.ask(as_json({**document, "parameters": {"binary_data_output": True}})))
    assert blobs["same"] == struct.pack("<3f", 1, 3, 2)
    assert head["outputs"][1]["data"] == [3.0]


@pytest.mark.parametrize("is_binary", [False, True])
def test_classes_are_the_largest_scores_with_their_labels(served: Served, tiny: TinyModel, is_binary: bool) -> None:
    wanted = {"name": "scores", "parameters": {"classification": 1, "binary_data": is_binary}}
    answer = served.ask(as_json({**numbers(INSTANCE.tolist()), "outputs": [wanted]}))
    place = int(tiny.oracle(INSTANCE[0]).argmax())
    if is_binary:
        head, blobs = read_binary(answer)
        text = blobs["scores"][4:].decode()
        assert struct.unpack("<I", blobs["scores"][:4]) == (len(text),)
    else:
        head = json.loads(answer.body)
        (text,) = head["outputs"][0]["data"]
    assert (head["outputs"][0]["datatype"], head["outputs"][0]["shape"]) == ("BYTES", [1, 1])
    score, index, label = text.split(":")
    assert (int(index), label) == (place, ("no", "yes")[place])
    assert float(score) == pytest.approx(tiny.oracle(INSTANCE[0])[place], abs=TOLERANCE)


@pytest.mark.parametrize(("num_instances", "num_classes", "fits"), [(500, 2, True), (501, 2, False), (501, 9, False)])
def test_no_more_classes_are_written_than_soon_are(
    served: Served, num_instances: int, num_classes: int, *, fits: bool
) -> None:
    wanted = [{"name": "scores", "parameters": {"classification": num_classes}}]
    sent = tensor(served.spec, num_instances, data=[1] * (4 * num_instances))
    document = as_json({"inputs": [sent], "outputs": wanted})
    if fits:
        assert len(served.contract.read(document).instances) == num_instances
        return
    with pytest.raises(RequestInvalid, match="at most 1,000 classes in all, of all instances, got 1,002"):
        served.contract.read(document)


@given(arrays.arrays(np.int64, (2, 5), elements=st.integers(-(2**63), 2**63 - 1) | st.just(0)), st.integers(1, 7))
def test_classes_fall_and_of_equal_ones_the_first_comes_first(output: Array, num_classes: int) -> None:
    for row, classes in zip(output.tolist(), classify(output, num_classes, ()), strict=True):
        oracle = sorted(range(5), key=lambda place: (-row[place], place))[:num_classes]
        assert classes == [f"{row[place]}:{place}" for place in oracle]


@pytest.mark.parametrize("parameters", [{}, {"binary_data": True}, {"classification": 1}])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_is_never_sent(served: Served, parameters: dict[str, Any], wrong: float) -> None:
    wanted = [{"name": "scores", "parameters": parameters}]
    document = {"inputs": [tensor(served.spec, 2, data=[1] * 8)], "outputs": wanted}
    work = served.contract.read(as_json(document))
    with pytest.raises(InstanceInvalid, match=r"on instance 1: 'scores'\[0\] is"):
        work.write((np.array([[1, 2], [wrong, 4]], np.float32),))


def test_a_refusal_names_itself_and_keeps_other_statuses(served: Served) -> None:
    answer = served.ask(as_json(numbers([1, 2, 3])))
    assert answer.status == 400
    assert json.loads(answer.body)["code"] == "instance_invalid"
    assert served.contract.refuse(Overloaded("too many", retry_after_seconds=2)).status == 429


# --- Triton's client -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_binary", [False, True])
def test_tritons_client_is_understood_and_understands(served: Served, tiny: TinyModel, is_binary: bool) -> None:
    from tritonclient.http import (
        InferenceServerClient,
        InferInput,
        InferRequestedOutput,
    )

    sent = InferInput("x", [2, 4], "FP32")
    instances = np.concatenate([INSTANCE, 2 * INSTANCE])
    sent.set_data_from_numpy(instances, binary_data=is_binary)
    for outputs in (None, [InferRequestedOutput("scores", binary_data=is_binary)]):
        body, length = InferenceServerClient.generate_request_body([sent], outputs=outputs, request_id="r")
        question = Question(body, Headers(header_length=b"" if length is None else b"%d" % length))
        assert served.contract.try_read(question) is not None
        answer = served.ask(question)
        told = int(dict(answer.headers)[b"inference-header-content-length"]) if answer.headers else None
        result = InferenceServerClient.parse_response_body(answer.body, header_length=told)
        assert result.get_response()["id"] == "r"
        oracle = np.stack([tiny.oracle(instance) for instance in instances])
        assert np.allclose(result.as_numpy("scores"), oracle, atol=TOLERANCE)


# --- documents -------------------------------------------------------------------------------------------------------


def test_metadata_and_configuration_name_tensors_and_types(served: Served, forked: Served) -> None:
    metadata = describe_metadata(served.model, ["3", "4"])
    assert metadata == {
        "name": "digits",
        "versions": ["3", "4"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
    }
    assert "versions" not in describe_metadata(forked.model)
    config = describe_config(served.model)
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert config["output"] == [{"name": "scores", "data_type": "TYPE_FP32", "dims": [2]}]
    assert config["max_batch_size"] > 0


def test_statistics_count_in_nanoseconds(served: Served) -> None:
    statistics = Statistics(num_inferences=5, num_executions=2, success=Duration(count=2, nanoseconds=900))
    (entry,) = list_statistics([describe_statistics(served.model, statistics)])["model_stats"]
    assert (entry["name"], entry["version"]) == ("digits", "4")
    assert (entry["inference_count"], entry["execution_count"]) == (5, 2)
    assert entry["inference_stats"]["success"] == {"count": 2, "ns": 900}
    assert set(entry["inference_stats"]) == {
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
    }


def test_the_server_and_the_index_say_what_there_is() -> None:
    assert "binary_tensor_data" in describe_server("1.0")["extensions"]
    unavailable = {"name": "digits", "version": "4", "state": "UNAVAILABLE", "reason": "digest mismatch"}
    assert index_entry("digits", "4", "UNAVAILABLE", "digest mismatch") == unavailable
