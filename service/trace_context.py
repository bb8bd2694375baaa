"""Whose trace a request belongs to, as the header `traceparent` of W3C Trace Context says it.

    00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    version, trace id, parent id, flags; the lowest flag: the parent keeps this trace

A later version may say more behind the flags; ff is none. What is not of this form is as if it had not been sent.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_BYTES = 512
SAMPLED = 1

_read = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?P<more>-.*)?",
    re.DOTALL,
).fullmatch


class TraceContext(NamedTuple):
    """The trace, the span in it that asked, both in lower-case hexadecimal digits; whether that span is kept."""

    trace_id: str
    parent_id: str
    is_sampled: bool


def read_traceparent(value: bytes) -> TraceContext | None:
    """Read the header; None if there is none, or it is not one."""
    found = _read(value) if len(value) <= MAX_BYTES else None
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == b"00" and more is not None:
        return None
    return TraceContext(trace_id.decode(), parent_id.decode(), bool(int(flags, 16) & SAMPLED))
