"""The head of a plain request is read once; whatever is not plain, or not exactly a head, is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.heads import MAX_KEPT, Head, read_head
from service.protocols.contract import Headers

PLAIN = (b"POST /predict HTTP/1.1", b"Host: x", b"Content-Length: 7")


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_a_plain_head_says_where_to_and_how_long() -> None:
    read = read_head(head(*PLAIN, b"Content-Type: application/json", b"CONTENT-ENCODING: identity"))
    assert read == Head("/predict", 7, Headers(content_type=b"application/json", content_encoding=b"identity"))


@pytest.mark.parametrize(
    "lines",
    [
        (b"GET /predict HTTP/1.1", b"content-length: 7"),
        (b"POST /predict HTTP/1.0", b"content-length: 7", b"connection: keep-alive"),
        (b"POST /predict HTTP/1.1", b"host: x"),
        (*PLAIN, b"connection: close"),
        (*PLAIN, b"expect: 100-continue"),
        (*PLAIN, b"upgrade: h2c", b"connection: upgrade"),
        (*PLAIN, b"content-length: 8"),
        (*PLAIN, b"transfer-encoding: chunked"),
        (b"POST /predict HTTP/1.1", b"transfer-encoding: chunked"),
        (b"POST /predict HTTP/1.1", b"content-length: -1"),
        (b"POST /predict?x=1 HTTP/1.1", b"content-length: 7"),
        (b"POST /%70redict HTTP/1.1", b"content-length: 7"),
        (b"POST http://x/predict HTTP/1.1", b"content-length: 7"),
        (b"POST * HTTP/1.1", b"content-length: 7"),
        (b"POST /predict HTTP/1.1\ncontent-length: 7",),
        (b"POST /predict HTTP/1.1", b"content-length: 7\n\nsmuggled"),
        (b"", *PLAIN[1:]),
        (b"nonsense",),
    ],
)
def test_what_is_not_plain_is_left_to_the_usual_way(lines: tuple[bytes, ...]) -> None:
    assert read_head(head(*lines)) is None


@given(before=st.binary(max_size=30), after=st.binary(min_size=1, max_size=30))
def test_only_a_head_and_nothing_else_is_a_head(before: bytes, after: bytes) -> None:
    whole = head(*PLAIN)
    assert read_head(whole + after) is None
    if before.strip(b"\r\n"):
        assert read_head(before + whole) != read_head(whole)


@given(place=st.integers(0, len(head(*PLAIN)) - 1))
def test_half_a_head_is_none(place: int) -> None:
    assert read_head(head(*PLAIN)[:place]) is None


def test_what_is_remembered_is_bounded() -> None:
    for number in range(MAX_KEPT + 100):
        read_head(head(*PLAIN, b"traceparent: %d" % number))
    assert read_head.cache_info().currsize <= MAX_KEPT
