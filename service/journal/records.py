"""What the server's rooms say by Python's logging, by the same queue as all else, and as JSON where that is wanted."""

from __future__ import annotations

import logging
import time
import traceback
from functools import partial
from typing import Any

import msgspec

from service.journal.access import Format, format_time
from service.journal.lines import Lines

MAX_CHARACTERS = 16_000  # of a traceback


class LinesHandler(logging.Handler):
    """Puts records into the queue. What a record refers to is written down at once, as it may change."""

    def __init__(self, lines: Lines, style: Format) -> None:
        super().__init__()
        self._lines = lines
        self._write = _write_json if style == "json" else _write_text

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written."""
        try:
            trouble = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a bad record is the logging module's affair, and no reason to fail
            self.handleError(record)
            return
        self._lines.put(partial(self._write, record.created, record.levelname, record.name, message, trouble))


def tell_dropped(style: Format, count: int) -> bytes:
    """Say how many lines never got out, as too many waited."""
    write = _write_json if style == "json" else _write_text
    return write(time.time(), "WARNING", __name__, f"{count} log lines were dropped: nobody read them in time", "")


def _write_json(created: float, level: str, logger: str, message: str, trouble: str) -> bytes:
    line: dict[str, Any] = {
        "time": format_time(created),
        "level": level.lower(),
        "event": "log",
        "logger": logger,
        "message": message,
        **({"exception": trouble[-MAX_CHARACTERS:]} if trouble else {}),
    }
    return msgspec.json.encode(line) + b"\n"


def _write_text(_: float, level: str, __: str, message: str, trouble: str) -> bytes:
    prefix = "" if level == "INFO" else f"{level.lower()}: "
    return f"foldserve: {prefix}{message}\n{trouble[-MAX_CHARACTERS:]}".encode()
