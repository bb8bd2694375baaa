"""The `traceparent` header: to which trace a request belongs, and whether its caller wants it recorded.

W3C Trace Context, section 3.2: version, trace id, parent id and flags in lower-case hexadecimal. Later versions may
have more behind the flags; ids of zeros only are none.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PATTERN = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1


class TraceParent(NamedTuple):
    """Where a request comes from: ids in hexadecimal."""

    trace_id: str
    parent_id: str
    is_sampled: bool


def read_traceparent(header: bytes) -> TraceParent | None:
    """Read the header; None if there is none, or it is not of the form: then a new trace begins."""
    found = PATTERN.fullmatch(header.strip())
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more) or not trace_id.strip(b"0") or not parent_id.strip(b"0"):
        return None
    return TraceParent(trace_id.decode(), parent_id.decode(), bool(int(flags, 16) & SAMPLED))
