"""JSON read thoroughly: keeps what quick decoders lose, as names that stand twice, NaN, where a text breaks off.

It is the standard library's decoder, so it takes long; only what a quick one has refused is read here. A text that is
not JSON is refused with the place in bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from service.errors import BodyMalformed

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Longer integers are read as floats: Python takes quadratic time for them, and refuses beyond 4300 digits.
MAX_INTEGER_DIGITS = 300


@dataclass(frozen=True)
class JsonObject:
    """A JSON object with its members in order, duplicates kept."""

    members: list[tuple[str, Any]]


class NotFinite(str):
    """A number that JSON or double precision has no place for, as it was written: NaN, Infinity, 1e999."""

    __slots__ = ()


def read_json(body: bytes, expected: str) -> Any:
    """Turn a body into values: lists, strings, numbers, booleans, None, `JsonObject` and `NotFinite`.

    `expected` is what the body should have been, for the messages.

    Raises:
        BodyMalformed: it is not JSON in UTF-8.
    """
    return _parse(_read_text(body, expected), expected)


def _read_text(body: bytes, expected: str) -> str:
    if not body:
        raise BodyMalformed("the body is empty", expected=expected, got="nothing")
    if body.startswith(BYTE_ORDER_MARK):
        raise BodyMalformed("the body starts with a byte order mark", expected="JSON in UTF-8, without a mark")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as err:
        raise BodyMalformed(f"the body is not UTF-8: byte {err.start} fits nowhere", expected="JSON in UTF-8") from err


def _parse(text: str, expected: str) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=JsonObject,
            parse_constant=NotFinite,
            parse_float=_parse_float,
            parse_int=_parse_integer,
        )
    except json.JSONDecodeError as err:
        raise _malformed(text, err) from err
    except RecursionError as err:
        raise BodyMalformed("the body is nested too deeply", expected=expected) from err


def _malformed(text: str, err: json.JSONDecodeError) -> BodyMalformed:
    offset = len(text[: err.pos].encode())
    if not text[err.pos :].strip():
        return BodyMalformed(f"the body is not JSON: it breaks off at byte {offset}", got="an unfinished text")
    return BodyMalformed(f"the body is not JSON: {err.msg[0].lower()}{err.msg[1:]}, at byte {offset}")


def _parse_float(text: str) -> float | NotFinite:
    value = float(text)
    return value if math.isfinite(value) else NotFinite(text)


def _parse_integer(text: str) -> int | float | NotFinite:
    return int(text) if len(text) <= MAX_INTEGER_DIGITS else _parse_float(text)
