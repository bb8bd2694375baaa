"""Requests have names, and belong to traces: what a client sends is taken if it is fit, and never harms."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.request_ids import name_request
from service.trace_context import TraceContext, read_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
USUAL = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "name",
    [
        b"a",
        b"x" * 128,
        b"5f2b1c0e-1f9b-4c55-9e7d-1d2f3a4b5c6d",
        b"Root=1-67891233-abcdef012345678912345678",
        b"req_01H8:retry/2",
        b"aGVsbG8+d29ybGQ/".replace(b"?", b"="),
    ],
)
def test_a_fit_name_is_kept(name: bytes) -> None:
    assert name_request(name) == name


@given(st.binary(max_size=200))
@example(b'"')
@example(b"a b")
@example(b"a\r\nset-cookie: x")
@example(b"\x7f")
@example("ä".encode())
@example(b"x" * 129)
def test_whatever_was_sent_the_name_is_short_plain_text_that_needs_no_quoting(sent: bytes) -> None:
    name = name_request(sent)
    assert 0 < len(name) <= 128
    assert all(0x21 <= byte <= 0x7E for byte in name)
    assert not set(name) & set(b"\"'`\\<>,;&")
    assert name_request(name) == name


def test_no_name_is_given_twice_in_a_process_or_in_two() -> None:
    code = "from service.request_ids import name_request; print(*(name_request(b'').decode() for _ in range(1000)))"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    here = [name_request(b"").decode() for _ in range(1000)]
    assert len({*elsewhere, *here}) == 2000


def test_a_traceparent_says_trace_parent_and_whether_it_is_kept() -> None:
    assert read_traceparent(USUAL.encode()) == TraceContext(TRACE, PARENT, is_sampled=True)
    assert read_traceparent(f"00-{TRACE}-{PARENT}-00".encode()) == TraceContext(TRACE, PARENT, is_sampled=False)


@pytest.mark.parametrize(("flags", "is_sampled"), [("03", True), ("02", False), ("ff", True), ("fe", False)])
def test_only_the_lowest_flag_is_looked_at(flags: str, is_sampled: bool) -> None:
    assert read_traceparent(f"00-{TRACE}-{PARENT}-{flags}".encode()) == TraceContext(TRACE, PARENT, is_sampled)


@pytest.mark.parametrize("value", [f"01-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01-what=ever-comes"])
def test_a_later_version_is_read_as_far_as_we_know_it(value: str) -> None:
    assert read_traceparent(value.encode()) == TraceContext(TRACE, PARENT, is_sampled=True)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        "00-1-2-3",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01-",
        f"01-{TRACE}-{PARENT}-01.more",
        f"00-{TRACE}-{PARENT}-0g",
        f"0g-{TRACE}-{PARENT}-01",
        f" {USUAL}",
        f"{USUAL}\n",
        f"{USUAL},{USUAL}",
        f"01-{TRACE}-{PARENT}-01-{'x' * 10_000}",
    ],
)
def test_what_is_no_traceparent_is_as_if_it_had_not_been_sent(value: str) -> None:
    assert read_traceparent(value.encode()) is None


@given(st.binary(max_size=80))
def test_no_bytes_at_all_make_it_fail(value: bytes) -> None:
    assert read_traceparent(value) is None
