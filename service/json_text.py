"""JSON read thoroughly: keeps what quick decoders lose, as names that stand twice, NaN, where a text breaks off.

It is the standard library's decoder, so it takes long; only what a quick one has refused is read here. A text that is
not JSON is refused with the place in bytes. No decoder lets another thread run meanwhile, so long texts are read by the
quick one after all: names that stand twice are found there by counting the colons.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import msgspec

from service.errors import BodyMalformed, InstanceInvalid, RequestError, RequestInvalid

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Longer integers are read as floats: Python takes quadratic time for them, and refuses beyond 4300 digits.
MAX_INTEGER_DIGITS = 300
# The standard library holds up all other threads for some ten milliseconds with a text of this length.
MAX_THOROUGH_BYTES = 256 * 1024
# So many lists and dictionaries are made in some ten milliseconds; and one with so many names.
MAX_CONTAINERS = 100_000
MAX_NAMES = 100_000
USUAL_NAMES = 100  # of one object, which may come on top
# Where no text has one of these, each colon in a string stands there as itself.
ESCAPED_COLONS = (b"\\u003a", b"\\u003A")
PARTED = {str, list, dict}  # of plain values, those with a colon in them
TRUNCATED = "Input data was truncated"


@dataclass(frozen=True, slots=True)
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
        RequestInvalid: it is long, and has too many parts, or a name in it stands twice.
        InstanceInvalid: it is long, and a number in it is beyond double precision.
    """
    if len(body) > MAX_THOROUGH_BYTES:
        return _to_objects(read_long_json(body, expected))
    return _parse(_read_text(body, expected), expected)


def read_long_json(body: bytes, expected: str) -> Any:
    """Turn a body into plain values, quickly: lists, dictionaries, strings, numbers, booleans and None.

    Raises:
        BodyMalformed: it is not JSON in UTF-8.
        RequestInvalid: it has too many parts, or a name in it stands twice.
        InstanceInvalid: a number is beyond double precision.
    """
    _read_text(body, expected)
    try:
        msgspec.json.decode(body, type=msgspec.Raw)  # makes no objects, so what is no JSON costs little
        refuse_crowded(body)
        value = msgspec.json.decode(body)
    except RecursionError as err:
        raise BodyMalformed("the body is nested too deeply", expected=expected) from err
    except (msgspec.MsgspecError, ValueError) as err:
        raise _name_mistake(body, str(err)) from err
    _refuse_second_names(body, value)
    return value


def refuse_crowded(body: bytes) -> None:
    """Refuse a text of which a decoder would make so many objects that it would hold up all other threads.

    Raises:
        RequestInvalid: it has too many arrays and objects, or too many names.
    """
    num_objects = body.count(b"{")
    if num_objects + body.count(b"[") > MAX_CONTAINERS:
        raise _crowded(f"{MAX_CONTAINERS:,} arrays and objects")
    if body.count(b":") > MAX_NAMES + USUAL_NAMES * num_objects:
        raise _crowded(f"{MAX_NAMES:,} names in so few objects")


def count_colons(value: object) -> int:
    """Count the colons of the JSON text that a value was read from, if no name stands twice in it."""
    if isinstance(value, str):
        return value.count(":")
    if isinstance(value, dict):
        names: int = sum(1 + name.count(":") for name in value)
        return names + sum(count_colons(item) for item in value.values() if isinstance(item, str | dict | list))
    if isinstance(value, list) and not PARTED.isdisjoint(map(type, value)):
        return sum(map(count_colons, value))
    return 0


def has_second_names(body: bytes, value: object) -> bool:
    """Say if a name stands twice in an object of the text that a value was read from; or may do so."""
    return hides_colon(body) or body.count(b":") != count_colons(value)


def hides_colon(body: bytes) -> bool:
    """Say if a colon is written as an escape, so that counting the colons says nothing."""
    return any(escape in body for escape in ESCAPED_COLONS)


def _refuse_second_names(body: bytes, value: object) -> None:
    if not has_second_names(body, value):
        return
    raise RequestInvalid(
        "the body: a name stands more than once in one of its objects (or a colon is written as \\u003a, which is read "
        f"only in bodies of up to {MAX_THOROUGH_BYTES} bytes)",
        expected="each name once",
        got="one of them again",
    )


def _to_objects(value: Any) -> Any:
    if isinstance(value, dict):
        return JsonObject([(name, _to_objects(item)) for name, item in value.items()])
    if isinstance(value, list) and not {dict, list}.isdisjoint(map(type, value)):
        return [_to_objects(item) for item in value]
    return value


def _crowded(what: str) -> RequestInvalid:
    return RequestInvalid(
        f"the body has more than {what}: send fewer instances in one request", expected=f"at most {what}", got="more"
    )


def _name_mistake(body: bytes, said: str) -> RequestError:
    """Say msgspec's words in ours: `JSON is malformed: invalid character (byte 7)`."""
    if said.startswith(TRUNCATED):
        return BodyMalformed(f"the body is not JSON: it breaks off at byte {len(body)}", got="an unfinished text")
    reason, at, byte = said.removeprefix("JSON is malformed: ").rpartition(" (byte ")
    if at:
        return BodyMalformed(f"the body is not JSON: {reason}, at byte {byte[:-1]}")
    return InstanceInvalid(
        "a number in the body is out of range: expected numbers that are finite", expected="numbers that are finite"
    )


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
