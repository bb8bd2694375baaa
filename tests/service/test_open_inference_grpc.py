"""The Open Inference Protocol over gRPC: the oracle's bits for Triton's own client, and no wrong request answered."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from service.errors import InstanceInvalid, RequestError
from service.open_inference_grpc import messages
from service.open_inference_grpc.contract import MAX_QUICK_BYTES, OpenInferenceGrpc
from service.open_inference_grpc.messages import DESCRIPTORS, HEALTH, INFERENCE, load_pool, message_type, types_of_call
from service.open_inference_grpc.server import read_metadata
from service.protocols.contract import Question, Work
from service.repository import ServedModel
from tests.service.exact_models import eighths, exact_instances, exact_model, expected_bits
from tests.service.grpc_server import MAX_CALLS, MAX_MESSAGE_BYTES, SLOW
from tests.service.served_models import run, serve
from tests.service.tiny_models import TinyModel, tiny_model, write_tiny_bundle

Array = NDArray[Any]
ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "service" / "open_inference_grpc"
FIELDS = {"float32": "fp32_contents", "float64": "fp64_contents", "int64": "int64_contents"}
DATATYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}
KINDS = [((4,), "float32"), ((2, 3), "float32"), ((2, 3), "float64"), ((3,), "int64")]


@dataclass(frozen=True)
class Asked:
    """A model of eighths in one kind of numbers, whose answers are known to the bit, with its contract."""

    tiny: TinyModel
    model: ServedModel
    contract: OpenInferenceGrpc

    def draw(self, count: int, seed: int) -> Array:
        spec = self.tiny.signature.input
        values = eighths(np.random.default_rng(seed), (count, *spec.shape))
        return (values * 8 if spec.dtype == "int64" else values).astype(spec.dtype)

    def request(self, instances: Array, *, is_raw: bool = True, **fields: Any) -> Any:
        spec = self.tiny.signature.input
        request = message_type("inference.ModelInferRequest")(model_name="digits", **fields)
        tensor = request.inputs.add(name="x", datatype=DATATYPES[spec.dtype], shape=instances.shape)
        if is_raw:
            request.raw_input_contents.append(instances.tobytes())
        else:
            getattr(tensor.contents, FIELDS[spec.dtype]).extend(instances.ravel().tolist())
        return request

    def read(self, request: Any) -> Work:
        question = Question(request.SerializeToString())
        quick, thorough = self.contract.try_read(question), self.contract.read(question)
        assert quick is not None
        assert list(quick.instances) == list(thorough.instances)
        return thorough

    def answer(self, request: Any) -> Any:
        work = self.read(request)
        answer = work.write(run(self.model, work))
        assert answer.status == 200
        return message_type("inference.ModelInferResponse").FromString(answer.body)

    def refusal(self, request: Any) -> RequestError:
        question = Question(request.SerializeToString())
        assert self.contract.try_read(question) is None
        with pytest.raises(RequestError) as caught:
            self.contract.read(question)
        assert self.contract.refuse(caught.value).status == 400
        return caught.value


@pytest.fixture(scope="module")
def all_asked(tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    return [_open(shape, dtype, tmp_path_factory.mktemp("models")) for shape, dtype in KINDS]


@pytest.fixture(scope="module")
def asked(all_asked: list[Asked]) -> Asked:
    return all_asked[0]


def _open(shape: tuple[int, ...], dtype: str, directory: Path) -> Asked:
    tiny = tiny_model(shape, num_labels=3, dtype=dtype, labels=("a", "b", "c"))
    rng = np.random.default_rng(5)
    tiny = replace(tiny, weight=eighths(rng, tiny.weight.shape), bias=eighths(rng, tiny.bias.shape))
    model = serve(tiny, directory)
    return Asked(tiny, model, OpenInferenceGrpc(model))


# --- the messages ----------------------------------------------------------------------------------------------------


def test_every_message_and_number_is_the_one_of_tritons_client() -> None:
    ours = [kind for kind in _all_messages() if kind.file.package == "inference"]
    assert len(ours) > 30
    for kind in ours:
        theirs = _theirs(kind.full_name)
        for field in kind.fields:
            other = theirs.fields_by_name[field.name]
            assert _shape_of(field) == _shape_of(other), field.full_name


def test_every_call_takes_and_gives_what_it_does_at_triton() -> None:
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    service = load_pool().FindServiceByName(INFERENCE)
    assert theirs.full_name == INFERENCE
    for method in service.methods:
        other = theirs.methods_by_name[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name


def test_the_descriptors_are_those_of_the_proto_files(tmp_path: Path) -> None:
    sources = sorted(path.name for path in SOURCES.glob("*.proto"))
    made = tmp_path / "made"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--descriptor_set_out={made}", *sources]
    subprocess.run(command, cwd=SOURCES, check=True)
    assert FileDescriptorSet.FromString(made.read_bytes()) == FileDescriptorSet.FromString(
        (SOURCES / DESCRIPTORS).read_bytes()
    )


def _all_messages() -> Iterator[Any]:
    """Every message that can be reached from what a call takes or gives."""
    todo = [
        kind.DESCRIPTOR
        for call in load_pool().FindServiceByName(INFERENCE).methods
        for kind in types_of_call(INFERENCE, call.name)
    ]
    seen = {}
    while todo:
        kind = todo.pop()
        if kind.full_name not in seen:
            seen[kind.full_name] = kind
            todo.extend(field.message_type for field in kind.fields if field.message_type is not None)
    yield from seen.values()


def _theirs(full_name: str) -> Any:
    _, *names = full_name.split(".")
    file = service_pb2 if names[0] in service_pb2.DESCRIPTOR.message_types_by_name else model_config_pb2
    kind = file.DESCRIPTOR.message_types_by_name[names[0]]
    for name in names[1:]:
        kind = kind.nested_types_by_name[name]
    return kind


def _shape_of(field: Any) -> tuple[Any, ...]:
    kind = field.message_type.full_name if field.message_type else None
    values = {value.name: value.number for value in field.enum_type.values} if field.enum_type else None
    oneof = field.containing_oneof.name if field.containing_oneof else None
    return field.number, field.type, field.is_repeated, kind, values, oneof


# --- what is read and written ----------------------------------------------------------------------------------------


@given(kind=st.integers(0, len(KINDS) - 1), count=st.integers(1, 20), seed=st.integers(0, 10_000), is_raw=st.booleans())
@settings(deadline=None, max_examples=100)
def test_raw_and_typed_contents_give_the_oracles_bits(
    all_asked: list[Asked], kind: int, count: int, seed: int, *, is_raw: bool
) -> None:
    asked = all_asked[kind]
    instances = asked.draw(count, seed)
    response = asked.answer(asked.request(instances, is_raw=is_raw))
    [scores] = response.outputs
    assert (scores.name, scores.datatype, list(scores.shape)) == ("scores", "FP32", [count, 3])
    assert list(response.raw_output_contents) == [expected_bits(asked.tiny, instances)]


def test_an_answer_names_the_model_its_version_and_the_request(asked: Asked) -> None:
    response = asked.answer(asked.request(asked.draw(1, 0), id="42 ☃"))
    assert (response.model_name, response.model_version, response.id) == ("digits", "4", "42 ☃")


def test_a_timeout_is_in_microseconds_and_zero_is_none(asked: Asked) -> None:
    request = asked.request(asked.draw(1, 0))
    request.parameters["timeout"].int64_param = 1500
    assert asked.read(request).timeout_seconds == pytest.approx(0.0015)
    request.parameters["timeout"].int64_param = 0
    assert asked.read(request).timeout_seconds is None


def test_parameters_that_clients_leave_standing_do_no_harm(asked: Asked) -> None:
    request = asked.request(asked.draw(1, 0))
    request.parameters["priority"].uint64_param = 7
    request.parameters["nothing"].SetInParent()
    request.inputs[0].parameters["binary_data_size"].int64_param = 16
    assert asked.answer(request).outputs[0].name == "scores"


def test_classes_are_texts_with_their_lengths_in_front(asked: Asked) -> None:
    instances = asked.draw(2, 3)
    request = asked.request(instances)
    request.outputs.add(name="scores").parameters["classification"].int64_param = 2
    response = asked.answer(request)
    scores = [asked.tiny.oracle(instance).astype(np.float32) for instance in instances]
    wanted = [f"{row[place]}:{place}:{'abc'[place]}" for row in scores for place in np.argsort(-row, kind="stable")[:2]]
    assert list(response.outputs[0].shape) == [2, 2]
    assert _split_texts(response.raw_output_contents[0]) == wanted


def _split_texts(packed: bytes) -> list[str]:
    texts = []
    while packed:
        length = int.from_bytes(packed[:4], "little")
        texts.append(packed[4 : 4 + length].decode())
        packed = packed[4 + length :]
    return texts


def test_a_long_request_is_left_to_the_thread(asked: Asked) -> None:
    instances = asked.draw(MAX_QUICK_BYTES // 16 + 1, 0)
    question = Question(asked.request(instances).SerializeToString())
    assert asked.contract.try_read(question) is None
    assert len(asked.contract.read(question).instances) == len(instances)


def test_an_output_that_is_not_finite_is_refused(asked: Asked) -> None:
    work = asked.read(asked.request(asked.draw(2, 0)))
    with pytest.raises(InstanceInvalid, match="overflows"):
        work.write((np.array([[1, 2, 3], [1, np.inf, 3]], np.float32),))


# --- what is refused -------------------------------------------------------------------------------------------------


def _rename_input(request: Any) -> None:
    request.inputs[0].name = "xx"


def _add_input(request: Any) -> None:
    request.inputs.append(request.inputs[0])


def _add_many_inputs(request: Any) -> None:
    for _ in range(1000):
        request.inputs.append(request.inputs[0])


def _drop_inputs(request: Any) -> None:
    del request.inputs[:]


def _misspell_datatype(request: Any) -> None:
    request.inputs[0].datatype = "fp32"


def _change_datatype(request: Any) -> None:
    request.inputs[0].datatype = "FP64"


def _say_shape(*shape: int) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.inputs[0].shape[:] = shape

    return change


def _cut_raw(request: Any) -> None:
    request.raw_input_contents[0] = request.raw_input_contents[0][:-1]


def _drop_raw(request: Any) -> None:
    del request.raw_input_contents[:]


def _double_raw(request: Any) -> None:
    request.raw_input_contents.append(request.raw_input_contents[0])


def _add_typed(request: Any) -> None:
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])


def _type_wrongly(request: Any) -> None:
    _drop_raw(request)
    request.inputs[0].contents.fp64_contents.extend([1, 2, 3, 4])


def _type_twice(request: Any) -> None:
    _drop_raw(request)
    _add_typed(request)
    request.inputs[0].contents.int_contents.append(1)


def _type_too_few(request: Any) -> None:
    _drop_raw(request)
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3])


def _put_nan(request: Any) -> None:
    request.raw_input_contents[0] = np.array([1, 2, np.nan, 4], np.float32).tobytes()


def _type_infinity(request: Any) -> None:
    _drop_raw(request)
    request.inputs[0].contents.fp32_contents.extend([1, float("inf"), 3, 4])


def _want(*names: str) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        for name in names:
            request.outputs.add(name=name)

    return change


def _give(name: str, **value: Any) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        for choice, one in value.items():
            setattr(request.parameters[name], choice, one)

    return change


def _give_many(request: Any) -> None:
    for number in range(1000):
        request.parameters[str(number)].bool_param = True


def _share_memory(request: Any) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (_rename_input, "inputs[0].name", "Did you mean 'x'?"),
        (_add_input, "inputs", "more than once"),
        (_add_many_inputs, "inputs", "more than once"),
        (_drop_inputs, "inputs", "no input"),
        (_misspell_datatype, "inputs[0].datatype", "Did you mean 'FP32'?"),
        (_change_datatype, "inputs[0].datatype", "expected FP32, which is the model's, got FP64"),
        (_say_shape(4), "inputs[0].shape", "[n, 4] with n ≥ 1, got [4]"),
        (_say_shape(0, 4), "inputs[0].shape", "got [0, 4]"),
        (_say_shape(-1, 4), "inputs[0].shape", "got [-1, 4]"),
        (_say_shape(2**60, 2**4), "inputs[0].shape", "got [1152921504606846976, 16]"),
        (_say_shape(2**30, 4), "raw_input_contents[0]", "expected 17179869184 bytes"),
        (_say_shape(*[1] * 1000), "inputs[0].shape", "got [1, 1"),
        (_say_shape(2, 4), "raw_input_contents[0]", "expected 32 bytes, for float32 of shape [2, 4], got 16 bytes"),
        (_cut_raw, "raw_input_contents[0]", "got 15 bytes"),
        (_drop_raw, "inputs[0]", "got neither"),
        (_double_raw, "raw_input_contents", "got 2 entries"),
        (_add_typed, "inputs[0]", "got both"),
        (_type_wrongly, "inputs[0].contents", "expected fp32_contents, for float32, got fp64_contents"),
        (_type_twice, "inputs[0].contents", "got int_contents, fp32_contents"),
        (_type_too_few, "inputs[0].contents.fp32_contents", "expected 4 numbers"),
        (_put_nan, "inputs[0][2]", "a finite number, got nan"),
        (_type_infinity, "inputs[0][1]", "got inf"),
        (_want("score"), "outputs[0].name", "Did you mean 'scores'?"),
        (_want("scores", "scores"), "outputs[1].name", "'scores' again"),
        (_want(*["scores"] * 1000), "outputs[1].name", "'scores' again"),
        (_give("timeout", int64_param=-1), "parameters.timeout", "microseconds"),
        (_give("timeout", string_param="1"), "parameters.timeout", "microseconds"),
        (_give("timeout", bool_param=True), "parameters.timeout", "microseconds"),
        (_give("sequence_id", int64_param=1), "parameters.sequence_id", "keeps nothing"),
        (_give("triton_x", int64_param=1), "parameters.triton_x", "triton_"),
        (_give_many, "parameters", "at most 64"),
        (_share_memory, "inputs[0].parameters.shared_memory_region", "not offered"),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    asked: Asked, change: Callable[[Any], None], field: str, words: str
) -> None:
    request = asked.request(np.ones((1, 4), np.float32))
    change(request)
    refusal = asked.refusal(request)
    assert refusal.field == field
    assert words in str(refusal)
    assert len(str(refusal)) < 400


@given(st.binary(max_size=60), st.integers(0, 100), st.binary(max_size=4))
@settings(deadline=None, max_examples=300)
def test_no_bytes_raise_anything_but_a_refusal(asked: Asked, noise: bytes, place: int, patch: bytes) -> None:
    good = asked.request(asked.draw(2, 0), id="1").SerializeToString()
    for body in (noise, good[:place] + patch + good[place + len(patch) :], good[:place] + patch + good[place:]):
        try:
            work = asked.contract.read(Question(body))
        except RequestError:
            assert asked.contract.try_read(Question(body)) is None
        else:
            assert {len(instance) for instance in work.instances} == {16}


def test_a_message_that_is_none_is_malformed(asked: Asked) -> None:
    with pytest.raises(RequestError, match="expected a ModelInferRequest, got 3 bytes that are none"):
        asked.contract.read(Question(b"{}\n"))


def test_metadata_become_headers_and_the_deadline_their_timeout() -> None:
    metadata = (("authorization", "Bearer k"), ("x-api-key", "q"), ("x-request-id", "7"), ("other", b"\x00"))
    headers = read_metadata(metadata, 1.5)
    assert (headers.authorization, headers.api_key, headers.request_id) == (b"Bearer k", b"q", b"7")
    assert float(headers.timeout) == 1.5
    assert float(read_metadata((), 0.0).timeout) > 0
    assert read_metadata(None, None).timeout == b""
    assert read_metadata(None, None).request_id


# --- a real server and Triton's own client ---------------------------------------------------------------------------

MODEL = exact_model((4,), num_labels=3)
INSTANCES = exact_instances(MODEL, 5)
START_SECONDS = 30.0
BAD_KEY = {"authorization": "Bearer bad"}


@dataclass
class Server:
    process: subprocess.Popen[str]
    address: str

    @property
    def peak_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def finish(self) -> str:
        """Have it stop with grace, and give what it said last."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        said = self.process.stdout.read()
        assert self.process.wait(timeout=START_SECONDS) == 0
        return said


@contextmanager
def serving(bundle: Path, port: int = 0) -> Iterator[Server]:
    command = [sys.executable, "-W", "error", "-m", "tests.service.grpc_server", str(bundle), str(port)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, cwd=ROOT) as process:  # type: ignore[call-overload]
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(process.stderr.read())
            yield Server(process, f"127.0.0.1:{int(line)}")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    return write_tiny_bundle(root, MODEL, version="4").directory


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with serving(bundle) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as opened:
        yield opened


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


def _input(instances: Array = INSTANCES) -> triton.InferInput:
    return triton.InferInput("x", list(instances.shape), "FP32").set_data_from_numpy(instances)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritons_client_gets_the_oracles_bits(client: Any, compression: str | None) -> None:
    result = client.infer("digits", [_input()], compression_algorithm=compression, request_id="42")
    assert result.as_numpy("scores").tobytes() == expected_bits(MODEL, INSTANCES)
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("digits", "4", "42")


def test_typed_contents_get_the_same_bits_through_tritons_stub(channel: grpc.Channel) -> None:
    request = service_pb2.ModelInferRequest(model_name="digits", model_version="4")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=INSTANCES.shape)
    tensor.contents.fp32_contents.extend(INSTANCES.ravel().tolist())
    response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
    assert list(response.raw_output_contents) == [expected_bits(MODEL, INSTANCES)]


def test_tritons_client_reads_classes(client: Any) -> None:
    wanted = triton.InferRequestedOutput("scores", class_count=1)
    classes = client.infer("digits", [_input()], outputs=[wanted]).as_numpy("scores")
    best = [int(np.argmax(MODEL.oracle(instance))) for instance in INSTANCES]
    assert [int(text[0].split(b":")[1]) for text in classes] == best


def test_tritons_client_finds_all_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "4")
    assert not client.is_model_ready("digits", "5")
    assert not client.is_model_ready("nobody")


def test_tritons_client_reads_what_server_and_model_are(client: Any) -> None:
    told = client.get_server_metadata()
    assert (told.name, told.version) == ("foldserve", "1.2.3")
    metadata = client.get_model_metadata("digits")
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [("x", "FP32", [-1, 4])]
    config = client.get_model_config("digits").config
    assert config.max_batch_size > 1
    assert [(one.name, one.data_type, list(one.dims)) for one in config.output] == [
        ("scores", model_config_pb2.TYPE_FP32, [3])
    ]


def test_tritons_client_reads_statistics_and_the_index(client: Any) -> None:
    before = client.get_inference_statistics("digits").model_stats[0].inference_count
    client.infer("digits", [_input()])
    assert client.get_inference_statistics().model_stats[0].inference_count == before + 1
    index = MessageToDict(client.get_model_repository_index())["models"]
    assert index == [
        {"name": "digits", "version": "4", "state": "READY"},
        {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "no such file"},
    ]


def test_tritons_client_loads_and_unloads_and_health_follows(client: Any, channel: grpc.Channel) -> None:
    assert _health(channel) == "SERVING"
    client.unload_model(SLOW)
    assert not client.is_server_ready()
    assert _health(channel) == "NOT_SERVING"
    client.load_model(SLOW)
    assert client.is_server_ready()


def _health(channel: grpc.Channel, service: str = "") -> str:
    request, response = types_of_call(HEALTH, "Check")
    check = channel.unary_unary(f"/{HEALTH}/Check", request.SerializeToString, response.FromString)
    return str(MessageToDict(check(request(service=service), timeout=10))["status"])


def test_health_of_a_service_that_is_not_here_is_not_found(channel: grpc.Channel) -> None:
    assert _health(channel, INFERENCE) == "SERVING"
    with pytest.raises(grpc.RpcError) as caught:
        _health(channel, "other.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("ask", "code", "words"),
    [
        (lambda client: client.infer("nobody", [_input()]), "NOT_FOUND", "nobody"),
        (lambda client: client.infer("digits", [_input()], model_version="5"), "NOT_FOUND", "'5'"),
        (lambda client: client.infer("digits", [_input(INSTANCES[:, :3])]), "INVALID_ARGUMENT", "[n, 4]"),
        (lambda client: client.get_model_metadata("nobody"), "NOT_FOUND", "nobody"),
        (lambda client: client.get_model_config("nobody"), "NOT_FOUND", "nobody"),
        (lambda client: client.get_inference_statistics("nobody"), "NOT_FOUND", "nobody"),
        (lambda client: client.load_model("nobody"), "NOT_FOUND", "nobody"),
        (lambda client: client.load_model("busy"), "UNAVAILABLE", "another model"),
        (lambda client: client.load_model("bug"), "INTERNAL", "the server failed on this request"),
        (lambda client: client.load_model(SLOW, config="{}"), "INVALID_ARGUMENT", "'config'"),
        (lambda client: client.get_trace_settings(), "UNIMPLEMENTED", ""),
        (lambda client: client.infer("digits", [_input(np.ones((9000, 4), np.float32))]), "RESOURCE_EXHAUSTED", "max"),
        (lambda client: client.infer("digits", [_input()], headers=BAD_KEY), "UNAUTHENTICATED", "key"),
        (lambda client: client.get_server_metadata(headers=BAD_KEY), "UNAUTHENTICATED", "key"),
    ],
)
def test_a_refusal_has_grpcs_code_and_our_sentence(
    client: Any, ask: Callable[[Any], object], code: str, words: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(client)
    assert caught.value.status() == f"StatusCode.{code}"
    assert words in caught.value.message()
    assert "secret" not in caught.value.message()


@pytest.mark.parametrize("call", ["ModelInfer", "ModelMetadata", "RepositoryModelLoad"])
def test_bytes_that_are_no_message_are_the_clients_mistake(channel: grpc.Channel, call: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{INFERENCE}/{call}")(b"\xff\xff", timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_behind_an_answer_stand_the_requests_name_and_a_refusals_code(channel: grpc.Channel) -> None:
    live, load = (channel.unary_unary(f"/{INFERENCE}/{call}") for call in ("ServerLive", "RepositoryModelLoad"))
    _, good = live.with_call(b"", timeout=10, metadata=[("x-request-id", "mine")])
    assert dict(good.trailing_metadata())["x-request-id"] == "mine"
    busy = message_type("inference.RepositoryModelLoadRequest")(model_name="busy")
    with pytest.raises(grpc.RpcError) as caught:
        load(busy.SerializeToString(), timeout=10)
    trailer = dict(caught.value.trailing_metadata())
    assert (trailer["error-code"], trailer["retry-after"]) == ("not_ready", "1")


def test_a_call_whose_deadline_is_over_is_withdrawn(client: Any) -> None:
    before = _num_withdrawn(client)
    with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
        client.infer(SLOW, [_input()], client_timeout=0.2)
    _wait_until(lambda: _num_withdrawn(client) == before + 1)


def test_a_call_that_its_client_cancels_is_withdrawn(client: Any) -> None:
    before = _num_withdrawn(client)
    under_way = client.async_infer(SLOW, [_input()], callback=_ignore)
    time.sleep(0.1)
    under_way.cancel()
    _wait_until(lambda: _num_withdrawn(client) == before + 1)


def test_more_calls_than_allowed_are_refused_at_once(client: Any) -> None:
    under_way = [client.async_infer(SLOW, [_input()], callback=_ignore) for _ in range(MAX_CALLS)]
    with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
        _keep_asking(client)
    for call in under_way:
        call.cancel()
    _wait_until(lambda: _answers(client))


def _keep_asking(client: Any) -> None:
    for _ in range(1000):
        client.is_server_live()


def _answers(client: Any) -> bool:
    try:
        return bool(client.is_server_live())
    except InferenceServerException:
        return False


def _ignore(**_: object) -> None:
    """Take an answer that nobody waits for."""


def _num_withdrawn(client: Any) -> int:
    return int(client.get_inference_statistics().model_stats[0].execution_count)


def _wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_bomb_is_refused_at_the_cost_of_the_limit(
    server: Server, channel: grpc.Channel, compression: grpc.Compression
) -> None:
    """50 MB that are 50 kB when packed; the limit is 100 kB."""
    before = server.peak_mib
    bomb = bytes(500 * MAX_MESSAGE_BYTES)
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{INFERENCE}/ModelInfer")(bomb, timeout=20, compression=compression)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.peak_mib - before < 20  # gRPC's own buffers; unpacked it would be 48


def test_a_server_that_stops_gives_calls_under_way_its_grace_and_no_more(bundle: Path) -> None:
    with serving(bundle) as server, triton.InferenceServerClient(server.address) as client:
        errors: list[Any] = []
        client.async_infer(SLOW, [_input()], callback=lambda **told: errors.append(told["error"]), client_timeout=9)
        time.sleep(0.3)
        began = time.monotonic()
        seconds = float(server.finish())
        assert 8 < seconds < 9.5  # the deadline, as the lane was told it
        assert 0.9 < time.monotonic() - began < 6  # the grace is one second
        _wait_until(lambda: len(errors) == 1)


def test_a_taken_port_is_refused_in_a_sentence(server: Server, bundle: Path) -> None:
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(RuntimeError, match=r"gRPC can not listen on 127\.0\.0\.1"), serving(bundle, port):
        pass


def test_a_process_may_have_a_clients_copy_of_the_messages_too() -> None:
    assert service_pb2.ModelInferRequest is not messages.message_type("inference.ModelInferRequest")
    assert service_pb2.DESCRIPTOR.pool is not load_pool()
