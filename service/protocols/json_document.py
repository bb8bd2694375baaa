"""A JSON body as one plain object, read strictly: no name stands twice in it, and every number is finite.

msgspec reads it, which is quick, but keeps the last of two equal names. So the colons of the text are counted: where
they are no more than the names, no name stands twice. All else is read thoroughly (`json_text.py`), which says what is
wrong, or finds that the colons stood in strings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import msgspec

from service.diagnosis import refuse
from service.errors import BodyMalformed, RequestError, RequestInvalid
from service.json_text import (
    MAX_THOROUGH_BYTES,
    JsonObject,
    NotFinite,
    has_second_names,
    read_json,
    read_long_json,
    refuse_crowded,
)
from service.protocols.contract import MAX_INLINE_BYTES
from service.wording import MAX_PATH, describe, did_you_mean, list_names, quote, shorten_path

Document = dict[str, Any]
Result = TypeVar("Result")

LONG_BODY = 1 << 16  # bytes; what is longer is read in a thread, however it is written
PARTED = {JsonObject, NotFinite, list}  # of all that the thorough reading gives, what is not plain, or has parts


def try_read_document(body: bytes) -> Document | None:
    """Read an object, quickly; None if it takes long or something is wrong."""
    try:
        if len(body) > MAX_THOROUGH_BYTES:
            refuse_crowded(body)
        document = msgspec.json.decode(body)
        if not isinstance(document, dict):
            return None
        if body.count(b":") == _count_names(document) or not has_second_names(body, document):
            return document
    except (msgspec.MsgspecError, RequestError, ValueError, RecursionError):
        return None
    return None


def read_document(body: bytes, expected: str) -> Document:
    """Read an object; `expected` is what it should have been, for the messages.

    Raises:
        BodyMalformed: it is not JSON in UTF-8.
        RequestInvalid: it is no object, a name stands twice in one, or it has too many parts.
        InstanceInvalid: a number is not finite.
    """
    document = try_read_document(body)
    if document is None:
        document = _read_thoroughly(body, expected)
    if not isinstance(document, dict):
        raise RequestInvalid(
            f"the body is not an object: expected {expected}, got {describe(document)}",
            expected=expected,
            got=describe(document),
        )
    return document


def check_keys(document: Document, known: tuple[str, ...]) -> None:
    """Refuse a key that the protocol does not have.

    Raises:
        RequestInvalid: and asks for the nearest key that there is.
    """
    for name in document:
        if name not in known:
            expected = f"one of {list_names(known)}"
            question = did_you_mean(name, known)
            raise RequestInvalid(
                f"unknown key {quote(name)}: expected {expected}.{question}",
                field=quote(name)[1:-1],
                expected=expected,
                got=quote(name),
            )


def choose_key(document: Document, known: tuple[str, ...]) -> str:
    """Give the one key of those known that the document has.

    Raises:
        RequestInvalid: it has none of them, or several.
    """
    found = [name for name in known if name in document]
    if len(found) == 1:
        return found[0]
    expected = f"exactly one of the keys {list_names(known)}"
    got = list_names(found) if found else _list_keys(document)
    raise RequestInvalid(f"the body: expected {expected}, got {got}", expected=expected, got=got)


def _list_keys(document: Document) -> str:
    return ", ".join(map(quote, list(document)[:3])) or "an empty object"


def _count_names(value: object) -> int:
    """Count the names in a value; too few of them in a list whose first item is neither object nor list."""
    if isinstance(value, dict):
        return len(value) + sum(map(_count_names, value.values()))
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return sum(map(_count_names, value))
    return 0


def _read_thoroughly(body: bytes, expected: str) -> Any:
    if len(body) > MAX_THOROUGH_BYTES:
        return read_long_json(body, expected)
    try:
        return _to_plain(read_json(body, expected), "")
    except RecursionError as err:
        raise BodyMalformed("the body is nested too deeply", expected=expected) from err


def _to_plain(value: object, path: str) -> Any:
    if isinstance(value, JsonObject):
        return _to_dict(value, path)
    if isinstance(value, list):
        return [
            _to_plain(item, _extend(path, f"[{place}]")) if type(item) in PARTED else item
            for place, item in enumerate(value)
        ]
    if isinstance(value, NotFinite):
        refuse(path or "the body", expected="a number that is finite", got=describe(value))
    return value


def _to_dict(value: JsonObject, path: str) -> Document:
    plain: Document = {}
    for name, item in value.members:
        if name in plain:
            _refuse_second(_name_place(path, name))
        plain[name] = _to_plain(item, _name_place(path, name)) if type(item) in PARTED else item
    return plain


def _name_place(path: str, name: str) -> str:
    return _extend(path, f"[{quote(name)}]") if path else quote(name)[1:-1]


def _extend(path: str, part: str) -> str:
    """Go a step further down, as long as the path is not too long to be shown."""
    return path if len(path) > MAX_PATH else path + part


def _refuse_second(path: str) -> NoReturn:
    where = shorten_path(path)
    raise RequestInvalid(f"{where} stands there more than once", field=where, expected="each name once", got="it again")


def try_reading(body: bytes, read: Callable[[Document], Result]) -> Result | None:
    """Read a short body that the quickest way of a protocol has not read; None if it is long, or has a mistake.

    A mistake takes long to find: longer bodies are for a thread.
    """
    document = try_read_document(body) if len(body) <= MAX_INLINE_BYTES else None
    try:
        return None if document is None else read(document)
    except RequestError:
        return None
