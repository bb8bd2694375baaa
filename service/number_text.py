"""Numbers in JSON straight to an array, without a Python object for each: for bodies with many of them.

simdjson parses a list into a buffer of float64. It does not mind what an instance may not be: nested lists come out
flat, of keys that stand twice the first is taken, a byte order mark is passed over. So what it reads counts only where
the text has one colon (then it has one key, and no other string) and the very brackets and commas of the shape. All
else is None: read it the thorough way, which decides. This way never takes what that one refuses, nor reads it
otherwise.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

# From a body to the bytes of the instance's array; None where the thorough way has to look.
ReadText = Callable[[bytes], bytes | None]
# From a bare list, flat or nested as the shape is, to the bytes of an array; None likewise.
ReadList = Callable[[bytes, tuple[int, ...]], bytes | None]

MIN_NUMBERS = 128  # of fewer, Python's objects are made faster than simdjson is called
# Where the squares sum up to less, no number is beyond 1e35: none overflows float32. By vdot, which does not warn where
# the sum itself overflows.
MAX_SQUARES = 1e70
NO_BRACKETS = bytes(set(range(256)) - set(b"[],"))
REFUSALS = (AttributeError, ValueError, TypeError, KeyError, RuntimeError)  # the first where there is no list


def plan_number_text(shape: tuple[int, ...], dtype: np.dtype[Any]) -> ReadText | None:
    """Plan the reading of `{"instance": …}` with the numbers of this shape, flat or nested; None: it does not pay.

    Any thread may read: each has a parser of its own, as two must not share one.
    """
    count, nested = math.prod(shape), _brackets(shape)
    if _simdjson_parse() is None or count < MIN_NUMBERS or dtype.kind != "f":
        return None
    parsers = _Parsers()

    def read(body: bytes) -> bytes | None:
        if not body.startswith(b"{") or not _once(body, b":"):
            return None
        if not _once(body, b"[") and body.translate(None, NO_BRACKETS) != nested:
            return None
        try:
            values = np.frombuffer(parsers.parse(body)["instance"].as_buffer(of_type="d"))
        except REFUSALS:
            return None
        if len(values) != count or not np.vdot(values, values) < MAX_SQUARES:
            return None
        return values.astype(dtype).tobytes()

    return read


def plan_number_list(dtype: np.dtype[Any]) -> ReadList | None:
    """Plan the reading of a bare list of numbers, of a shape that comes with it; None: it does not pay.

    Any thread may read, as for `plan_number_text`.
    """
    if _simdjson_parse() is None or dtype.kind != "f":
        return None
    parsers = _Parsers()

    def read(text: bytes, shape: tuple[int, ...]) -> bytes | None:
        count = math.prod(shape)
        if not MIN_NUMBERS <= count <= len(text):
            return None
        if not _once(text, b"[") and not _is_nested(text, shape):
            return None
        try:
            values = np.frombuffer(parsers.parse(text).as_buffer(of_type="d"))
        except REFUSALS:
            return None
        if len(values) != count or not np.vdot(values, values) < MAX_SQUARES:
            return None
        return values.astype(dtype).tobytes()

    return read


def _is_nested(text: bytes, shape: tuple[int, ...]) -> bool:
    """Say if a text that is a list of as many numbers as `shape` has, however nested, is nested as `shape`."""
    depth = len(shape)
    if shape[-1] == math.prod(shape) and text.startswith(b"[" * depth) and text.find(b"[", depth) < 0:
        return text.endswith(b"]" * depth)
    return text.translate(None, NO_BRACKETS) == _brackets(shape)


class _Parsers(threading.local):
    """One parser a thread."""

    def __init__(self) -> None:
        parse = _simdjson_parse()
        if parse is None:
            raise ImportError("simdjson is not installed")
        self.parse = parse


def _simdjson_parse() -> Callable[[bytes], Any] | None:
    """The parser, which keeps its memory from one body to the next; None where simdjson is not installed."""
    try:
        import simdjson
    except ImportError:
        return None
    return simdjson.Parser().parse


def _brackets(shape: tuple[int, ...]) -> bytes:
    """What is left of a nested list of this shape when all but brackets and commas is taken away."""
    inner = b""
    for size in reversed(shape):
        inner = b"[" + b",".join([inner] * size) + b"]"
    return inner


def _once(text: bytes, mark: bytes) -> bool:
    first = text.find(mark)
    return first != -1 and text.find(mark, first + 1) == -1
