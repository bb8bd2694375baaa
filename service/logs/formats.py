"""Log lines, one for each request or remark: JSON for programs, or short text for people.

    {"ts":"2026-01-31T12:00:00.000001Z","level":"info","event":"request","request_id":"5f…-1","model":"digits", …}
    2026-01-31T12:00:00.000001Z info POST /predict 200 0.412 ms model=digits version=1 request_id=5f…-1 …

Both are ASCII without control characters: whatever a client sent, it can not write a line of its own, nor steer a
terminal. Fields with nothing to say are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from service.entries import MAX_PATH, Entry
from service.logs.remarks import Remark, write_traceback
from service.wall_clock import WallClock

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, and written with a Z
FORMATS = ("json", "text")

Line = Entry | Remark
Fields = dict[str, Any]


def line_writer(form: str) -> Callable[[Line], bytes]:
    """Give what writes a line in one of the `FORMATS`, its end included."""
    clock = WallClock()
    write_entry, write_remark = (_entry_text, _remark_text) if form == "text" else (_entry_json, _remark_json)

    def write(line: Line) -> bytes:
        if isinstance(line, Entry):
            return write_entry(line, _write_time(clock.read(line.answered))).encode() + b"\n"
        return write_remark(line, _write_time(line.at)).encode() + b"\n"

    return write


def _write_time(nanoseconds: int) -> str:
    """Write a moment as RFC 3339 does, in UTC, to the microsecond."""
    return (EPOCH + timedelta(microseconds=nanoseconds // 1000)).isoformat(timespec="microseconds") + "Z"


def _entry_json(entry: Entry, at: str) -> str:
    fields: Fields = {"method": entry.method, "path": entry.path[:MAX_PATH]}
    said = {name: value for name, value in fields.items() if value}
    return _to_json({"ts": at, "level": _level(entry), "event": "request", **said, **dict(_fields(entry))})


def _remark_json(remark: Remark, at: str) -> str:
    fields: Fields = {"ts": at, "level": remark.level, "event": remark.event}
    return _to_json(fields | dict(_remark_fields(remark)))


def _entry_text(entry: Entry, at: str) -> str:
    fields = dict(_fields(entry))
    status, duration = fields.pop("status"), fields.pop("duration_ms")
    what = _harmless(f"{entry.method} {entry.path[:MAX_PATH]}".strip())
    return f"{at} {_level(entry)} {what} {status} {duration:.3f} ms {_pairs(fields)}".rstrip()


def _remark_text(remark: Remark, at: str) -> str:
    text = f"{at} {remark.level} {_harmless(' '.join(remark.message.split()))}"
    if remark.failure is None:
        return text
    return "\n    ".join((text, *map(_harmless, write_traceback(remark.failure).splitlines())))


def _level(entry: Entry) -> str:
    return "error" if entry.is_failure else "info"


def _fields(entry: Entry) -> Iterator[tuple[str, Any]]:
    """Give what there is to say of a request, beside where it went."""
    yield "status", entry.status
    yield "duration_ms", _milliseconds(entry.arrived, entry.answered)
    named = {
        "reason": entry.reason,
        "model": entry.model,
        "version": entry.version,
        "protocol": entry.protocol,
        "request_id": entry.request_id.decode("latin-1"),
        "trace_id": entry.trace.trace_id if entry.trace else "",
        "bytes_in": entry.bytes_in,
        "client": entry.client,
    }
    yield from ((name, value) for name, value in named.items() if value)
    yield from ((f"{stage}_ms", _milliseconds(begin, end)) for stage, begin, end in entry.stages())


def _remark_fields(remark: Remark) -> Iterator[tuple[str, Any]]:
    if remark.logger:
        yield "logger", remark.logger
    yield "message", remark.message
    if remark.num_lines:
        yield "lines", remark.num_lines
    if remark.failure is not None:
        yield "exception", write_traceback(remark.failure)


def _milliseconds(begin: float, end: float) -> float:
    return round((end - begin) * 1e3, 3)


def _pairs(fields: Fields) -> str:
    return " ".join(f"{name}={_harmless(str(value))}" for name, value in fields.items())


def _to_json(fields: Fields) -> str:
    return json.dumps(fields, separators=(",", ":"))


def _harmless(text: str) -> str:
    """Write whatever is no plain character as Python escapes it."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
