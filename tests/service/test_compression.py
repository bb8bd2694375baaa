"""Compressed bodies: unpacked to what was packed, refused for what is wrong, and never beyond the limit."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BodyMalformed, BodyTooLarge, FoldserveError, MediaTypeUnsupported
from service.protocols.compression import unpack

MEGABYTE = 1 << 20
PACK = {
    b"gzip": gzip.compress,
    b"X-GZIP": gzip.compress,
    b"deflate": zlib.compress,
    b" Deflate ": lambda body: zlib.compress(body, wbits=-15),
}


@given(body=st.binary(max_size=2000), encoding=st.sampled_from(sorted(PACK)))
def test_what_was_packed_comes_out(body: bytes, encoding: bytes) -> None:
    assert unpack(PACK[encoding](body), encoding, 2000) == body


def test_gzip_may_come_in_members() -> None:
    assert unpack(gzip.compress(b"one") + gzip.compress(b"two"), b"gzip", 6) == b"onetwo"
    with pytest.raises(BodyMalformed, match="16 members"):
        unpack(gzip.compress(b"") * 17, b"gzip", 6)


@pytest.mark.parametrize("encoding", sorted(PACK))
def test_one_byte_beyond_the_limit_is_too_large(encoding: bytes) -> None:
    assert unpack(PACK[encoding](bytes(1000)), encoding, 1000) == bytes(1000)
    with pytest.raises(BodyTooLarge, match="at most 999 bytes"):
        unpack(PACK[encoding](bytes(1000)), encoding, 999)


def test_a_bomb_costs_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(bytes(256 * MEGABYTE))
    tracemalloc.start()
    with pytest.raises(BodyTooLarge):
        unpack(bomb, b"gzip", MEGABYTE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MEGABYTE  # the limit, doubled as the buffer grows, and what was not unpacked


@given(body=st.binary(min_size=1, max_size=300), cut=st.integers(0, 400), encoding=st.sampled_from(["gzip", "deflate"]))
def test_what_breaks_off_or_is_no_such_thing_is_refused(body: bytes, cut: int, encoding: str) -> None:
    packed = PACK[encoding.encode()](body)
    for wrong in (packed[: min(cut, len(packed) - 1)], packed + b"x", b"\x00" + packed):
        with pytest.raises(FoldserveError):
            unpack(wrong, encoding.encode(), 1000)


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, gzip", b"gzip;q=1", b"\xff"])
def test_other_encodings_are_refused_by_name(encoding: bytes) -> None:
    with pytest.raises(MediaTypeUnsupported, match="expected gzip, deflate or none"):
        unpack(b"", encoding, 10)
