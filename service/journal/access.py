"""The access log: which requests get a line, and what stands in it.

One in so many does, and every one whose caller records it (`traceparent` says so); failures of the server always do,
refusals too, but no more than some a second of each, as who floods a server must not fill its disk. What was left out
is counted, and told with the next line.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import msgspec

from service.journal.entry import Entry, to_wall_clock
from service.journal.lines import Lines
from service.journal.traceparent import read_traceparent

Format = Literal["json", "text", "off"]

MAX_REFUSALS_A_SECOND = 10
MAX_FAILURES_A_SECOND = 100
MAX_SAMPLED_A_SECOND = 1000


class AccessLog:
    """Says of some requests how they went."""

    def __init__(self, lines: Lines, sample: float, style: Format) -> None:
        self._lines = lines
        self._every = round(1 / sample) if sample > 0 else 0
        self._render = _render_json if style == "json" else _render_text
        self._count = 0
        self._refusals = _Rate(MAX_REFUSALS_A_SECOND)
        self._failures = _Rate(MAX_FAILURES_A_SECOND)
        self._sampled = _Rate(MAX_SAMPLED_A_SECOND)

    def is_wanted(self, status: int, traceparent: bytes) -> bool:
        """Decide if a request gets a line."""
        if status >= 500:
            return self._failures.admits()
        if status >= 400:
            return self._refusals.admits()
        if not self._every:
            return False
        self._count += 1
        if self._count >= self._every:
            self._count = 0
            return self._sampled.admits()
        return bool(traceparent) and _is_recorded(traceparent) and self._sampled.admits()

    def write(self, entry: Entry) -> None:
        """Write a line, in another thread."""
        left_out = self._refusals.take() + self._failures.take() + self._sampled.take()
        self._lines.put(partial(self._render, entry, left_out))


class _Rate:
    """Admits so many a second, and counts the others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._second = 0.0
        self._count = 0
        self._left_out = 0

    def admits(self) -> bool:
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second, self._count = now, 0
        self._count += 1
        if self._count > self._most:
            self._left_out += 1
            return False
        return True

    def take(self) -> int:
        """Give how many were left out since this was asked last."""
        left_out, self._left_out = self._left_out, 0
        return left_out


def _is_recorded(traceparent: bytes) -> bool:
    trace = read_traceparent(traceparent)
    return trace is not None and trace.is_sampled


def format_time(seconds: float) -> str:
    """Write a moment as RFC 3339 has it, in UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _render_json(entry: Entry, left_out: int) -> bytes:
    trace = read_traceparent(entry.headers.traceparent)
    line: dict[str, Any] = {
        "time": format_time(to_wall_clock(entry.answered)),
        "level": _level(entry.status),
        "event": "request",
        "request_id": entry.request_id.decode("latin-1"),
        **({"trace_id": trace.trace_id} if trace else {}),
        "protocol": entry.protocol,
        "model": entry.model,
        **({"version": entry.version} if entry.version else {}),
        "status": entry.status,
        **({"reason": entry.reason} if entry.reason else {}),
        "answer_bytes": entry.answer_bytes,
        "duration_ms": round((entry.answered - entry.arrived) * 1e3, 3),
        **entry.stages(),
        **({"left_out": left_out} if left_out else {}),
    }
    return msgspec.json.encode(line) + b"\n"


def _render_text(entry: Entry, left_out: int) -> bytes:
    place = f"{entry.model}/{entry.version}" if entry.version else entry.model
    milliseconds = (entry.answered - entry.arrived) * 1e3
    words = [
        format_time(to_wall_clock(entry.answered)),
        f"{entry.status} {place} by {entry.protocol}, {milliseconds:.2f} ms",
        *([entry.reason] if entry.reason else []),
        entry.request_id.decode("latin-1"),
        *([f"({left_out} more were left out)"] if left_out else []),
    ]
    return " ".join(words).encode() + b"\n"


def _level(status: int) -> str:
    return "error" if status >= 500 else "warning" if status >= 400 else "info"
