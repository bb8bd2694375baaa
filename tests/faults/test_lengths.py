"""Faults 8 and 9: bodies that are too long, as they come or when they are unpacked, and bodies packed wrongly."""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from tests.faults.conftest import MAX_BODY_BYTES
from tests.faults.protocols import ALL, OPEN_INFERENCE, JsonProtocol
from tests.faults.standing import Standing, check_alive_and_right, memory_bytes
from tests.faults.wire import ask, connected, exchange, head, read_one, read_to_the_end, request
from tests.service.exact_models import exact_instances, expected_bits

AT_ONCE_SECONDS = 1.0  # on a busy machine; a server that waits for the body would wait for ever
SAMPLE_SECONDS = 0.01
every_protocol = pytest.mark.parametrize("protocol", ALL, ids=str)


class Peak:
    """The most memory that a process took while it was watched, in bytes."""

    def __init__(self) -> None:
        self.bytes = 0


@contextmanager
def watched(pid: int) -> Iterator[Peak]:
    """Sample a process's memory until the end."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            peak.bytes = max(peak.bytes, memory_bytes(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


# --- 8: too long -----------------------------------------------------------------------------------------------------


@every_protocol
def test_fault_08_a_body_that_is_announced_too_long_is_refused_before_it_comes(
    stand: Standing, protocol: JsonProtocol
) -> None:
    reply = exchange(stand.url, head(protocol.path, MAX_BODY_BYTES + 1))
    assert reply.status == 413
    assert reply.seconds < AT_ONCE_SECONDS
    assert reply.headers["connection"] == "close"
    assert str(MAX_BODY_BYTES) in reply.error
    check_alive_and_right(stand)


@every_protocol
def test_fault_08_chunks_without_an_end_are_refused_at_the_limit(stand: Standing, protocol: JsonProtocol) -> None:
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with watched(stand.pid) as peak:
        reply = exchange(stand.url, head(protocol.path, None, "transfer-encoding: chunked"), *[chunk] * 100)
    assert reply.status == 413
    assert peak.bytes - stand.base_bytes < 2 * MAX_BODY_BYTES
    check_alive_and_right(stand)


@every_protocol
def test_fault_08_what_is_sent_on_behind_a_refusal_is_not_kept(stand: Standing, protocol: JsonProtocol) -> None:
    with watched(stand.pid) as peak:
        reply = exchange(stand.url, head(protocol.path, 100 * MAX_BODY_BYTES), *[bytes(1 << 20)] * 60)
    assert reply.status in {413, 0}  # the refusal may be lost in a reset: the client sent on
    assert peak.bytes - stand.base_bytes < 2 * MAX_BODY_BYTES
    check_alive_and_right(stand)


def test_fault_08_a_body_of_just_the_limit_is_read(stand: Standing) -> None:
    body = stand.body().ljust(MAX_BODY_BYTES)
    assert ask(stand.url, "/predict", body).status == 200
    check_alive_and_right(stand)


# --- 9: compressed ---------------------------------------------------------------------------------------------------

GIGABYTE = 1 << 30


def bomb(size: int = GIGABYTE) -> bytes:
    """Pack so many blanks; for a gigabyte that is a megabyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    block = b" " * (1 << 24)
    return b"".join([packer.compress(block) for _ in range(size >> 24)]) + packer.flush()


def bare(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@every_protocol
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "deflate"])
def test_fault_09_a_packed_body_is_answered_as_a_plain_one(
    stand: Standing, protocol: JsonProtocol, encoding: str
) -> None:
    good = protocol.good(stand.instance)
    packed = gzip.compress(good) if "gzip" in encoding.lower() else zlib.compress(good)
    reply = ask(stand.url, protocol.path, packed, f"content-encoding: {encoding}")
    assert reply.status == 200
    assert reply.body == ask(stand.url, protocol.path, good).body


def test_fault_09_deflate_without_its_frame_is_read_too(stand: Standing) -> None:
    reply = ask(stand.url, "/predict", bare(stand.body()), "content-encoding: deflate")
    assert reply.status == 200


def test_fault_09_a_packed_binary_request_has_the_lengths_of_the_unpacked_one(stand: Standing) -> None:
    packed = gzip.compress(stand.instance.tobytes())
    lines = ("content-encoding: gzip", "inference-header-content-length: 0", "content-type: application/octet-stream")
    reply = ask(stand.url, OPEN_INFERENCE.path, packed, *lines)
    scores = reply.body[int(reply.headers["inference-header-content-length"]) :]
    assert scores == expected_bits(stand.model, stand.instance[None])


@pytest.fixture(scope="module")
def packed_gigabyte() -> bytes:
    return bomb()


@every_protocol
def test_fault_09_a_bomb_is_refused_and_takes_no_more_than_the_limit(
    stand: Standing, protocol: JsonProtocol, packed_gigabyte: bytes
) -> None:
    with watched(stand.pid) as peak:
        reply = ask(stand.url, protocol.path, packed_gigabyte, "content-encoding: gzip")
    assert reply.status == 413
    assert peak.bytes - stand.base_bytes < 3 * MAX_BODY_BYTES  # the packed body, the unpacked one, and a copy of it
    check_alive_and_right(stand)


def test_fault_09_a_bomb_of_many_members_is_refused(stand: Standing) -> None:
    reply = ask(stand.url, "/predict", bomb(1 << 24) * 10, "content-encoding: gzip")
    assert reply.status in {400, 413}
    check_alive_and_right(stand)


@every_protocol
@pytest.mark.parametrize("how", ["not gzip", "cut off", "one bit", "bytes behind it", "empty"])
def test_fault_09_a_body_that_can_not_be_unpacked_is_refused(stand: Standing, protocol: JsonProtocol, how: str) -> None:
    good = protocol.good(stand.instance)
    packed = gzip.compress(good)
    flipped = bytearray(packed)
    flipped[-6] ^= 1  # in the checksum
    spoilt = {
        "not gzip": good,
        "cut off": packed[:-9],
        "one bit": bytes(flipped),
        "bytes behind it": packed + b"behind",
        "empty": b"",
    }
    reply = ask(stand.url, protocol.path, spoilt[how], "content-encoding: gzip")
    assert reply.status == 400, reply.raw[:500]
    check_alive_and_right(stand)


@every_protocol
@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "x" * 300])
def test_fault_09_an_unknown_encoding_is_refused(stand: Standing, protocol: JsonProtocol, encoding: str) -> None:
    reply = ask(stand.url, protocol.path, protocol.good(stand.instance), f"content-encoding: {encoding}")
    assert reply.status == 415
    assert "gzip" in reply.error
    check_alive_and_right(stand)


def test_fault_09_while_a_bomb_is_unpacked_others_are_answered(stand: Standing, packed_gigabyte: bytes) -> None:
    with connected(stand.url) as bomber, connected(stand.url) as good:
        bomber.sendall(request("/predict", packed_gigabyte, "content-encoding: gzip", "connection: close"))
        good.sendall(request("/predict", stand.body()))
        started = time.perf_counter()
        reply = read_one(good)
        assert reply.status == 200
        assert time.perf_counter() - started < AT_ONCE_SECONDS
        assert b" 413 " in read_to_the_end(bomber)[:20]


# --- both, over one connection ---------------------------------------------------------------------------------------


def test_fault_08_and_09_good_requests_between_bad_ones_are_all_right(stand: Standing) -> None:
    instances = exact_instances(stand.model, 5, seed=3)
    with connected(stand.url) as connection:
        for instance in instances:
            connection.sendall(request("/predict", b"{", "content-encoding: gzip"))
            assert read_one(connection).status == 400
            values = ",".join(map(str, instance.tolist()))
            connection.sendall(request("/predict", f'{{"instance":[{values}]}}'.encode()))
            scores = np.array(read_one(connection).document["prediction"]["scores"], np.float32)
            assert scores.tobytes() == expected_bits(stand.model, instance[None])
