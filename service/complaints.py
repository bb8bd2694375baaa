"""Plain lines for people: what is so on stdout, what is wrong on stderr; and no trouble if nobody can read them."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO


def say(line: str) -> None:
    """Say something on one line of stdout."""
    _write(sys.stdout, f"{line}\n")


def complain(line: str) -> None:
    """Say on one plain line of stderr what is wrong."""
    _write(sys.stderr, f"foldserve: {' '.join(line.split())}\n")


def _write(stream: TextIO | None, line: str) -> None:
    """A full disk behind it, or a reader who has gone, keeps no server from serving."""
    if stream is None:  # the process was started without it
        return
    with contextlib.suppress(OSError):
        stream.write(line)
        stream.flush()
