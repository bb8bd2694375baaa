"""Log lines, one for each request or remark: JSON for programs, or short text for people.

    {"ts":"2026-01-31T12:00:00.000001Z","level":"info","event":"request","request_id":"5f…-1","model":"digits", …}
    2026-01-31T12:00:00.000001Z info POST /predict 200 0.412 ms model=digits version=1 request_id=5f…-1 …

Both are ASCII without control characters: whatever a client sent, it can not write a line of its own, nor steer a
terminal. Fields with nothing to say are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from service.entries import Entry
from service.logs.remarks import Remark, write_traceback
from service.wall_clock import WallClock

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, and written with a Z
FORMATS = ("json", "text")
NOTHING = ("", None)
DELETE = b"\x7f"

Line = Entry | Remark
Fields = dict[str, Any]

_escape = json.JSONEncoder(separators=(",", ":")).encode


def line_writer(form: str) -> Callable[[Line], bytes]:
    """Give what writes a line in one of the `FORMATS`, its end included."""
    clock, time_of_day = WallClock(), _TimeOfDay()
    write_entry, write_remark = (_entry_text, _remark_text) if form == "text" else (_entry_json, _remark_json)

    def write(line: Line) -> bytes:
        if isinstance(line, Entry):
            return write_entry(line, time_of_day.write(clock.read(line.answered))) + b"\n"
        return write_remark(line, time_of_day.write(line.at)) + b"\n"

    return write


class _TimeOfDay:
    """Writes moments as RFC 3339 does, in UTC, to the microsecond; of many in one second the date only once."""

    def __init__(self) -> None:
        self._second = -1
        self._written = ""

    def write(self, nanoseconds: int) -> str:
        """Write nanoseconds from 1970 on."""
        second, rest = divmod(nanoseconds, 1_000_000_000)
        if second != self._second:
            self._second, self._written = second, (EPOCH + timedelta(seconds=second)).isoformat()
        return f"{self._written}.{rest // 1000:06d}Z"


def _entry_json(entry: Entry, at: str) -> bytes:
    fields = {"ts": at, "level": _level(entry), "event": "request", "method": entry.method, "path": entry.path}
    return _to_json(fields | _fields(entry))


def _remark_json(remark: Remark, at: str) -> bytes:
    fields = {"ts": at, "level": remark.level, "event": remark.event, "logger": remark.logger}
    exception = "" if remark.failure is None else write_traceback(remark.failure)
    return _to_json({**fields, "message": remark.message, "lines": remark.num_lines or None, "exception": exception})


def _entry_text(entry: Entry, at: str) -> bytes:
    fields = _fields(entry)
    status, duration = fields.pop("status"), fields.pop("duration_ms")
    what = _harmless(f"{entry.method} {entry.path}".strip())
    return f"{at} {_level(entry)} {what} {status} {duration:.3f} ms {_pairs(fields)}".rstrip().encode()


def _remark_text(remark: Remark, at: str) -> bytes:
    text = f"{at} {remark.level} {_harmless(' '.join(remark.message.split()))}"
    more = [] if remark.failure is None else map(_harmless, write_traceback(remark.failure).splitlines())
    return "\n    ".join((text, *more)).encode()


def _level(entry: Entry) -> str:
    return "error" if entry.is_failure else "info"


def _fields(entry: Entry) -> Fields:
    """Give what there is to say of a request, beside where it went."""
    return {
        "status": entry.status,
        "reason": entry.reason,
        "duration_ms": _milliseconds(entry.arrived, entry.answered),
        "model": entry.model,
        "version": entry.version,
        "protocol": entry.protocol,
        "request_id": entry.request_id.decode("latin-1"),
        "trace_id": entry.trace.trace_id if entry.trace else "",
        "bytes_in": entry.bytes_in,
        "client": entry.client,
        **{f"{stage}_ms": _milliseconds(begin, end) for stage, begin, end in entry.stages()},
    }


def _milliseconds(begin: float, end: float) -> float:
    return round((end - begin) * 1e3, 3)


def _pairs(fields: Fields) -> str:
    return " ".join(f"{name}={_harmless(str(value))}" for name, value in fields.items() if value not in NOTHING)


def _to_json(fields: Fields) -> bytes:
    """Write with msgspec, which is fast, unless that gives what is no plain character: then with what escapes it."""
    said = {name: value for name, value in fields.items() if value not in NOTHING}
    try:
        line = msgspec.json.encode(said)
    except UnicodeEncodeError:  # half a character, of bytes that were no text
        return _escape(said).encode()
    return line if line.isascii() and DELETE not in line else _escape(said).encode()


def _harmless(text: str) -> str:
    """Write whatever is no plain character as Python escapes it."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
