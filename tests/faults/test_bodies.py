"""Faults 1 to 7: bodies that are not what they should be, in every protocol. The client hears why, nobody else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.faults.protocols import ALL, OPEN_INFERENCE, OWN, TENSORFLOW, JsonProtocol, write_tensor
from tests.faults.standing import Standing, check_alive_and_right
from tests.faults.wire import Reply, ask
from tests.service.exact_models import expected_bits

ANSWER_SECONDS = (
    5.0  # of megabytes with mistakes in them, on a busy machine; that a small one takes 1 ms is `make bench`'s
)
INFER = OPEN_INFERENCE.path
every_protocol = pytest.mark.parametrize("protocol", ALL, ids=str)


def check_refused(reply: Reply, status: int, *said: str) -> None:
    """A refusal has its status, says why in a sentence, and has no stack trace."""
    assert reply.status == status, reply.raw[:1000]
    assert reply.headers["content-type"] == "application/json"
    assert reply.error
    assert len(reply.error) < 1000
    assert "Traceback" not in reply.error
    for words in said:
        assert words.lower() in reply.error.lower()
    assert reply.seconds < ANSWER_SECONDS


# --- 1: no JSON ------------------------------------------------------------------------------------------------------


def spoil(good: bytes) -> dict[str, bytes]:
    return {
        "truncated": good[: len(good) // 2],
        "trailing comma": good[:-1] + b",}",
        "byte order mark": b"\xef\xbb\xbf" + good,
        "latin-1": good[:-1] + ',"ä":1}'.encode("latin-1"),
        "utf-16": good.decode().encode("utf-16"),
        "empty": b"",
        "blank": b" \r\n\t ",
        "two documents": good + good,
        "single quotes": good.replace(b'"', b"'"),
        "a comment": good[:-1] + b"/* so it is */}",
        "a zero byte": good[:-1] + b"\x00}",
    }


@every_protocol
@pytest.mark.parametrize("how", sorted(spoil(b'{"":0}')))
def test_fault_01_malformed_json_is_refused_and_says_at_which_byte(
    stand: Standing, protocol: JsonProtocol, how: str
) -> None:
    reply = ask(stand.url, protocol.path, spoil(protocol.good(stand.instance))[how])
    check_refused(reply, 400)
    if how not in {"empty", "blank", "byte order mark"}:  # of these the sentence itself says where
        assert re.search(r"byte \d+", reply.error), reply.error
    check_alive_and_right(stand)


@every_protocol
def test_fault_01_another_charset_is_no_media_type_of_ours(stand: Standing, protocol: JsonProtocol) -> None:
    body = protocol.good(stand.instance).decode().encode("utf-16")
    reply = ask(stand.url, protocol.path, body, "content-type: application/json; charset=utf-16")
    assert reply.status in {400, 415}
    check_alive_and_right(stand)


# --- 2: nesting ------------------------------------------------------------------------------------------------------

DEEP = {
    "250,000 lists": b"[" * 250_000 + b"]" * 250_000,
    "250,000 objects": b'{"a":' * 250_000 + b"1" + b"}" * 250_000,
    "10 MB of brackets": b"[" * 10_000_000,
    "10 MB of pairs": b"[]," * 3_333_333,
    "250,000 lists where the values belong": None,
}


@every_protocol
@pytest.mark.parametrize("how", DEEP)
def test_fault_02_deep_nesting_is_refused_and_its_memory_comes_back(
    stand: Standing, protocol: JsonProtocol, how: str
) -> None:
    inside = protocol.body("@").replace(b'"@"', b"[" * 250_000 + b"]" * 250_000)
    reply = ask(stand.url, protocol.path, DEEP[how] or inside)
    assert reply.status in {400, protocol.misfit}, reply.raw[:500]
    assert "recursion" not in reply.error.lower()
    check_alive_and_right(stand)


# --- 3: shapes of values ---------------------------------------------------------------------------------------------

MISFITS: dict[str, Any] = {
    "one too few": [0.0] * 63,
    "one too many": [0.0] * 65,
    "none": [],
    "ragged": [[0.0] * 8] * 7 + [[0.0] * 7],
    "too deep": [[[0.0]] * 64],
    "a number": 0.0,
    "null": None,
    "a string": "0",
    "an object": {"0": 0.0},
}


@every_protocol
@pytest.mark.parametrize("how", MISFITS)
def test_fault_03_values_of_another_shape_are_refused_by_name(
    stand: Standing, protocol: JsonProtocol, how: str
) -> None:
    reply = ask(stand.url, protocol.path, protocol.body(MISFITS[how]))
    check_refused(reply, protocol.misfit)
    assert reply.document.get("expected") or "expected" in reply.error
    check_alive_and_right(stand)


def test_fault_03_a_refusal_names_the_tensor_what_was_expected_and_what_came(stand: Standing) -> None:
    reply = ask(stand.url, INFER, OPEN_INFERENCE.body([0.0] * 63))
    check_refused(reply, 400, "64", "63")
    assert reply.document["field"].startswith("inputs[0]")


@pytest.mark.parametrize("shape", [[64], [1, 8, 8], [1, 63], [2, 64], [0, 64], [1], []], ids=str)
def test_fault_03_another_rank_or_size_than_the_models_is_refused(stand: Standing, shape: list[int]) -> None:
    reply = ask(stand.url, INFER, document(write_tensor([0.0] * 64, shape=shape)))
    check_refused(reply, 400, "shape" if shape != [2, 64] else "128")
    check_alive_and_right(stand)


def document(*tensors: Any, **members: Any) -> bytes:
    return json.dumps({"inputs": list(tensors), **members}).encode()


HUGE = ([16, 1 << 60], [1 << 63, 2], [1 << 70, 64])

# --- 4: shapes that are none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        [16, 1 << 60],
        [1 << 63, 2],
        [1 << 70, 64],
        [-1, 64],
        [1, -64],
        [1.0, 64],
        [1.5, 64],
        [True, 64],
        ["1", 64],
        None,
        {},
        64,
    ],
    ids=str,
)
def test_fault_04_a_shape_that_overflows_or_is_none_is_refused(stand: Standing, shape: Any) -> None:
    tensor = {**write_tensor([0.0] * 64), "shape": shape}
    check_refused(ask(stand.url, INFER, document(tensor)), 400, "shape")
    check_alive_and_right(stand)


@pytest.mark.parametrize("shape", [[16, 1 << 60], [1 << 62, 64], [-1, 64]], ids=str)
def test_fault_04_the_same_in_binary(stand: Standing, shape: list[int]) -> None:
    check_refused(ask_binary(stand, bytes(256), shape=shape), 400, "shape")
    check_alive_and_right(stand)


NO_FLOATS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e39", "true", '"1"', "null", "[1]")

# --- 5: numbers ------------------------------------------------------------------------------------------------------


@every_protocol
@pytest.mark.parametrize("text", NO_FLOATS)
def test_fault_05_what_is_no_float32_is_refused_with_its_index(
    stand: Standing, protocol: JsonProtocol, text: str
) -> None:
    reply = ask(stand.url, protocol.path, protocol.with_text(stand.instance, text))
    assert reply.status in {400, protocol.misfit}, reply.raw[:500]
    assert "0" in reply.document.get("field", "") or re.search(r"byte \d+", reply.error), reply.document
    check_alive_and_right(stand)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_fault_05_the_same_in_binary(stand: Standing, value: float) -> None:
    values = stand.instance.copy()
    values[5] = value
    check_refused(ask_binary(stand, values.tobytes()), 400, "5")
    check_refused(ask(stand.url, INFER, values.tobytes(), *BINARY, "inference-header-content-length: 0"), 400, "5")
    check_alive_and_right(stand)


@pytest.mark.parametrize("datatype", ["FP64", "FP16", "INT64", "UINT8", "BOOL", "BYTES"])
def test_fault_05_another_datatype_than_the_models_is_refused_not_converted(stand: Standing, datatype: str) -> None:
    check_refused(
        ask(stand.url, INFER, document(write_tensor([1] * 64, shape=[1, 64], datatype=datatype))), 400, "FP32"
    )
    check_alive_and_right(stand)


# --- 6: names --------------------------------------------------------------------------------------------------------

GOOD = write_tensor([0.0] * 64)
NAMES: dict[str, tuple[bytes, str]] = {
    "unknown input": (document({**GOOD, "name": "xx"}), "x"),
    "duplicate input": (document(GOOD, GOOD), "x"),
    "missing input": (document(), "x"),
    "unknown output": (document(GOOD, outputs=[{"name": "score"}]), "did you mean"),
    "duplicate output": (document(GOOD, outputs=[{"name": "scores"}] * 2), "scores"),
    "unknown datatype": (document({**GOOD, "datatype": "FP31"}), "did you mean"),
    "a reserved parameter": (document(GOOD, parameters={"triton_enable": 1}), "triton_"),
    "data twice": (document({**GOOD, "parameters": {"binary_data_size": 256}}), "binary_data_size"),
    "no data": (document({name: GOOD[name] for name in ("name", "datatype", "shape")}), "data"),
    "an id that is a number": (document(GOOD, id=42), "id"),
}


@pytest.mark.parametrize("how", NAMES)
def test_fault_06_a_wrong_name_is_refused_and_the_right_one_said(stand: Standing, how: str) -> None:
    body, said = NAMES[how]
    check_refused(ask(stand.url, INFER, body), 400, said)
    check_alive_and_right(stand)


def test_fault_06_a_key_that_stands_there_twice_is_refused(stand: Standing) -> None:
    for protocol, key in ((OWN, b"instance"), (TENSORFLOW, b"instances")):
        good = protocol.good(stand.instance)
        reply = ask(stand.url, protocol.path, good[:-1] + b"," + good[1:])
        assert reply.status in {400, protocol.misfit}, protocol.name
        assert key.decode() in reply.error
    check_alive_and_right(stand)


@pytest.mark.parametrize("path", ["/models/digit/predict", "/v2/models/digit/infer", "/v1/models/digit:predict"])
def test_fault_06_an_unknown_model_is_404_and_the_right_one_said(stand: Standing, path: str) -> None:
    check_refused(ask(stand.url, path, b"{}"), 404, "digits")
    check_alive_and_right(stand)


# --- 7: the binary extension -----------------------------------------------------------------------------------------

BINARY = ("content-type: application/octet-stream",)


def ask_binary(
    stand: Standing, data: bytes, *, shape: Any = (1, 64), size: Any = None, header_length: object = None
) -> Reply:
    """Ask in binary, with a header's length and a size that may be wrong; none is sent for an empty one."""
    parameters = {"binary_data_size": len(data) if size is None else size}
    tensor = {"name": "x", "datatype": "FP32", "shape": list(shape), "parameters": parameters}
    top = document(tensor)
    length = len(top) if header_length is None else header_length
    lines = (f"inference-header-content-length: {length}",) if length != "" else ()
    return ask(stand.url, INFER, top + data, *BINARY, *lines)


def test_fault_07_a_good_binary_request_is_answered(stand: Standing) -> None:
    """What the refusals below are compared with."""
    reply = ask_binary(stand, stand.instance.tobytes())
    assert reply.status == 200
    top = json.loads(reply.body[: int(reply.headers.get("inference-header-content-length", len(reply.body)))])
    assert top["outputs"][0]["name"] == "scores"
    raw = ask(stand.url, INFER, stand.instance.tobytes(), *BINARY, "inference-header-content-length: 0")
    scores = raw.body[int(raw.headers["inference-header-content-length"]) :]
    assert scores == expected_bits(stand.model, stand.instance[None])


@pytest.mark.parametrize("length", [-1, "x", "1.5", "1e2", "+5", 1 << 31, 1 << 64, "9" * 400, 10_000, 5, ""], ids=str)
def test_fault_07_a_wrong_header_length_is_refused(stand: Standing, length: object) -> None:
    check_refused(ask_binary(stand, bytes(256), header_length=length), 400)
    check_alive_and_right(stand)


@pytest.mark.parametrize("size", [0, 4, 255, 257, 10_000, -256, 1 << 40, 1 << 70, 256.0, "256", True, []], ids=str)
def test_fault_07_a_wrong_size_is_refused(stand: Standing, size: Any) -> None:
    check_refused(ask_binary(stand, bytes(256), size=size), 400)
    check_alive_and_right(stand)


@pytest.mark.parametrize("length", [0, 1, 252, 255, 257, 260, 512])
def test_fault_07_a_raw_body_of_another_length_is_refused(stand: Standing, length: int) -> None:
    check_refused(ask(stand.url, INFER, bytes(length), *BINARY, "inference-header-content-length: 0"), 400)
    check_alive_and_right(stand)
