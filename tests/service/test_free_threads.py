"""No body of a few megabytes keeps other threads, such as the event loop's, from running, or takes long on it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.bundle import Feature
from service.errors import RequestError
from service.protocols.contract import MAX_INLINE_BYTES, Contract, Headers, Question
from service.protocols.invocations import Invocations
from service.protocols.open_inference.contract import OpenInference
from service.protocols.predict import Endpoint
from service.protocols.tensorflow import TensorFlowServing
from service.protocols.vertex import VertexAI
from service.repository import ServedModel
from tests.service.served_models import serve
from tests.service.tiny_models import tiny_model

MAX_GAP_SECONDS = 0.25  # of the other thread, on a busy machine; some 0.05 where nothing else runs, 0.4 to 2 once
MAX_SECONDS = 4.0  # of one bad cell in 4 MiB of CSV, on a busy machine; 0.5 where nothing else runs, 11 once
BYTES = 4 << 20
CSV = Headers(content_type=b"text/csv")
FEATURES = (Feature(name="colour: of it", categories=("red", "blue: dark")), Feature(name="length"))
AROUND: dict[type, bytes] = {
    Endpoint: b'{"instance":%s}',
    TensorFlowServing: b'{"instances":%s}',
    VertexAI: b'{"instances":%s}',
    Invocations: b'{"inputs":%s}',
    OpenInference: b'{"inputs":[{"name":"x","shape":[1,1,64],"datatype":"FP32","data":%s}]}',
}


def fill(item: bytes) -> bytes:
    return b"[" + b",".join([item] * (BYTES // (len(item) + 1))) + b"]"


WRONG = {
    "NaN": fill(b"NaN"),
    "lists": fill(b"[]"),
    "objects": fill(b"{}"),
    "pairs": fill(b"[1]"),
    "numbers": fill(b"0.5"),
    "deep": b'{"":' * (BYTES // 5) + b"1" + b"}" * (BYTES // 5),
    "names": b"{" + b",".join(b'"%x":1' % number for number in range(BYTES // 10)) + b"}",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((1, 64)), tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((1,)), tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((3,), features=FEATURES), tmp_path_factory.mktemp("table"))


@pytest.fixture
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(3e-4)
    yield
    sys.setswitchinterval(before)


def longest_gap(work: Callable[[], Any]) -> float:
    """Do the work in a thread, and give for how long this one did not get to run meanwhile."""
    thread = threading.Thread(target=work)
    longest, last = 0.0, time.perf_counter()
    thread.start()
    while thread.is_alive():
        time.sleep(5e-4)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    thread.join()
    return longest


def refusal(contract: Contract, body: bytes, headers: Headers = Headers()) -> RequestError:  # noqa: B008 - a value
    with pytest.raises(RequestError) as caught:
        contract.read(Question(body, headers))
    return caught.value


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("kind", AROUND, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("how", WRONG)
def test_a_long_wrong_body_is_refused_while_others_run(image: ServedModel, kind: type, how: str) -> None:
    contract, body, said = kind(image), AROUND[kind] % WRONG[how], []
    assert longest_gap(lambda: said.append(refusal(contract, body))) < MAX_GAP_SECONDS
    assert len(str(said[0])) < 400


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (TensorFlowServing, b'{"instances":[' + b"[1]," * 4000 + b'["x"]]}'),
        (TensorFlowServing, b'{"inputs":[' + b"[1]," * 4000 + b'["x"]]}'),
        (VertexAI, b'{"instances":[' + b"[1]," * 4000 + b'["x"]]}'),
        (Invocations, b'{"instances":[' + b"[1]," * 4000 + b'["x"]]}'),
        (
            OpenInference,
            b'{"inputs":[{"name":"x","shape":[4001,1],"datatype":"FP32","data":[' + b"[1]," * 4000 + b'["x"]]}]}',
        ),
        (Endpoint, b'{"instance":[' + b"1," * 4000 + b'"x"]}'),
    ],
)
def test_a_mistake_is_not_looked_for_on_the_event_loop(one: ServedModel, kind: type, body: bytes) -> None:
    contract = kind(one)
    assert len(body) > MAX_INLINE_BYTES
    started = time.perf_counter()
    assert contract.try_read(Question(body)) is None
    assert time.perf_counter() - started < MAX_GAP_SECONDS
    field = refusal(contract, body).field
    assert field.endswith("[4000][0]") or kind is Endpoint


@pytest.mark.parametrize("line", [b"1", b"1e999", b"+1", b"x"], ids=str)
def test_one_bad_cell_in_a_long_csv_is_found_soon(image: ServedModel, line: bytes) -> None:
    row = b",".join([b"1"] * 64) + b"\n"
    body = row * (BYTES // len(row)) + row[:-2] + b"nan" + b"\n" + line
    started = time.perf_counter()
    error = refusal(Invocations(image), body, CSV)
    assert time.perf_counter() - started < MAX_SECONDS
    assert str(error).startswith(f"line {BYTES // len(row) + 1}, column 64: expected a number, got the string 'nan'")


def test_too_many_rows_are_refused(one: ServedModel) -> None:
    assert "more than 100,000 rows" in str(refusal(Invocations(one), b"1\n" * 200_000 + b"x", CSV))


def test_a_path_is_cut_where_it_is_long(one: ServedModel) -> None:
    body = b'{"instances":' + b'{"%s":' % (b"k" * 80) * 300 + b"NaN" + b"}" * 301
    error = refusal(TensorFlowServing(one), body)
    assert len(error.field) < 100
    assert len(str(error)) < 200


@pytest.mark.parametrize("number", [2, 5000], ids=["short", "long"])
def test_colons_in_names_and_words_are_innocent(table: ServedModel, number: int) -> None:
    row = b'{"colour: of it":"blue: dark","length":2},'
    body = b'{"instances":[' + (row * number)[:-1] + b"]}"
    assert len(TensorFlowServing(table).read(Question(body)).instances) == number
    assert Endpoint(table).read(Question(b'{"instance":%s}' % row[:-1])).instances
    assert Endpoint(table).read(Question(b'{"instance":%s}' % row[:-1].replace(b":", b"\\u003A", 1))).instances


@pytest.mark.parametrize("number", [2, 10_000], ids=["short", "long"])
def test_a_name_that_stands_twice_is_refused_however_long_the_body(table: ServedModel, number: int) -> None:
    row = b'{"colour: of it":"red","length":2},'
    twice = b'{"colour: of it":"red","length":3,"length":2}'
    said = str(refusal(TensorFlowServing(table), b'{"instances":[' + row * number + twice + b"]}"))
    assert "more than once" in said
    spaced = twice[:-1] + b" " * 50 * number + b"}"
    error = refusal(Endpoint(table), b'{"instance":%s}' % spaced)
    assert "once" in str(error)


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        (b"1e999", "numbers that are finite"),
        (b"NaN", "at byte"),
        (b"1,", "at byte"),
    ],
)
def test_a_long_document_with_unknown_keys_is_read_all_the_same(one: ServedModel, spoiled: bytes, said: str) -> None:
    contract, numbers = OpenInference(one), b",".join([b"0.5"] * 100_000)
    text = b'{"more":[{}],"inputs":[{"name":"x","shape":[100000,1],"datatype":"FP32","data":[%s]}]}'
    assert len(contract.read(Question(text % numbers)).instances) == 100_000
    assert said in str(refusal(contract, text % (spoiled + numbers[3:])))
