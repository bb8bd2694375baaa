"""The quick way to read numbers never takes what the thorough way refuses, nor reads it otherwise."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import RequestError
from service.instance import InstanceReader
from service.number_text import MIN_NUMBERS, plan_number_text
from tests.service.tiny_models import tiny_model

FLAT, NESTED = (MIN_NUMBERS,), (2, MIN_NUMBERS // 4, 2)
MARKS = [
    b"[",
    b"]",
    b",",
    b"{",
    b"}",
    b":",
    b'"',
    b"-",
    b"+",
    b"0",
    b".",
    b"e",
    b"1e39",
    b"\xef\xbb\xbf",
    b" ",
    b"\\u0069",
]
NUMBERS = ["1e400", "1e200", "-0", "-0.0", "1e-400", "18446744073709551616", "3.4028235677973366e38", "3.5e38"]
ODD = [*NUMBERS, '"["', '"1"', "NaN", "true", "[]"]


def read(reader: InstanceReader, body: bytes) -> bytes | str:
    try:
        return reader.pack(body)
    except RequestError as err:
        return str(err)


def without_the_quick_way(shape: tuple[int, ...], dtype: str) -> InstanceReader:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.instance.plan_number_text", lambda *_: None)
        return InstanceReader(tiny_model(shape, dtype=dtype).signature)


READERS = {
    (shape, dtype): (InstanceReader(tiny_model(shape, dtype=dtype).signature), without_the_quick_way(shape, dtype))
    for shape in (FLAT, NESTED)
    for dtype in ("float32", "float64")
}


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Write an instance, flat or nested, with an odd number in it perhaps, and spoil it perhaps."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shape = draw(st.sampled_from([FLAT, NESTED]))
    scale = draw(st.sampled_from([1.0, 1e-30, 1e37]))
    text = json.dumps(
        {"instance": (scale * rng.normal(size=shape)).tolist()}, separators=(",", draw(st.sampled_from([":", ": "])))
    )
    if draw(st.booleans()):
        numbers = text.split(",")
        numbers[draw(st.integers(1, len(numbers) - 2))] = draw(st.sampled_from(ODD))
        text = ",".join(numbers)
    body = text.encode()
    for _ in range(draw(st.integers(0, 2))):
        place, length = draw(st.integers(0, len(body))), draw(st.integers(0, 4))
        body = body[:place] + draw(st.sampled_from([b"", *MARKS])) + body[place + length :]
    return body


@settings(max_examples=1000, deadline=None)
@given(body=texts(), case=st.sampled_from(sorted(READERS)))
def test_both_ways_read_the_same_or_refuse_in_the_same_words(body: bytes, case: Any) -> None:
    quick, thorough = READERS[case]
    assert read(quick, body) == read(thorough, body)


@pytest.mark.parametrize("shape", [FLAT, NESTED])
def test_the_quick_way_is_really_taken(shape: tuple[int, ...]) -> None:
    quick = plan_number_text(shape, np.dtype("float32"))
    assert quick is not None
    instance = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for form in (instance, instance.ravel()):
        assert quick(json.dumps({"instance": form.tolist()}).encode()) == instance.tobytes()


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"instance":[%b]}',
        b'{"instance":[[%b]]}',
        b'{"instance":[%b],"instance":[%b]}',
        b'[{"instance":[%b]}]',
        b'{"instance":[%b]} x',
        b'{"other":[%b]}',
        b'{"instance":"["}',
        b'{"instance":"[%b"}',
    ],
)
def test_what_simdjson_would_let_pass_is_left_to_the_thorough_way(body: bytes) -> None:
    quick = plan_number_text(FLAT, np.dtype("float32"))
    assert quick is not None
    assert quick(body.replace(b"%b", b",".join([b"1"] * MIN_NUMBERS))) is None


@pytest.mark.parametrize(("shape", "dtype"), [((MIN_NUMBERS - 1,), "float32"), (FLAT, "int64")])
def test_where_it_does_not_pay_there_is_no_quick_way(shape: tuple[int, ...], dtype: str) -> None:
    assert plan_number_text(shape, np.dtype(dtype)) is None


def test_without_simdjson_all_is_read_the_thorough_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simdjson", None)
    assert plan_number_text(FLAT, np.dtype("float32")) is None
    assert InstanceReader(tiny_model(FLAT).signature).pack(b'{"instance":[%b]}' % b",".join([b"1"] * MIN_NUMBERS))
