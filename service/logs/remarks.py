"""What is said in a log beside the lines of requests: a module's message, a warning, a traceback, a count of lines."""

from __future__ import annotations

import traceback
from typing import NamedTuple

MAX_PIECE = 500  # of each part of a traceback: an error's own text may quote what was sent
MAX_TRACEBACK = 8000
CUT = " …"


class Remark(NamedTuple):
    """One message. `at` is in nanoseconds from 1970 on; `num_lines` are those of a log that are missing here."""

    at: int
    level: str
    event: str
    message: str
    logger: str = ""
    failure: traceback.TracebackException | None = None
    num_lines: int = 0


def cut(text: str, most: int) -> str:
    """Give a text, or what of it may be written."""
    return text if len(text) <= most else text[:most] + CUT


def write_traceback(failure: traceback.TracebackException) -> str:
    """Write a traceback; of a long one the end, where it says what went wrong."""
    text = "".join(cut(piece.rstrip("\n"), MAX_PIECE) + "\n" for piece in failure.format())
    return (text if len(text) <= MAX_TRACEBACK else CUT + text[-MAX_TRACEBACK:]).rstrip("\n")
