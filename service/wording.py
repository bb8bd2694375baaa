"""How a refusal names what was sent: by a few characters of it, so that no message repeats a whole request.

Everything here is safe to answer with: control characters and halves of surrogate pairs are escaped.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from service.json_text import JsonObject, NotFinite

MAX_QUOTED = 40
MAX_LISTED = 12
MAX_PATH = 80
MAX_BITS = 1000  # Python writes longer integers slowly, or not at all


def describe(value: Any) -> str:
    """Say in a few words what a JSON value is."""
    match value:
        case None | bool():
            return json.dumps(value)
        case NotFinite():
            return shorten(value)
        case str():
            return f"the string {quote(value)}"
        case JsonObject() | dict():
            return "an object"
        case list():
            return f"a list of {len(value)}"
        case _:
            return _describe_number(value)


def _describe_number(value: float) -> str:
    return "a huge integer" if isinstance(value, int) and value.bit_length() > MAX_BITS else shorten(repr(value))


def quote(text: str) -> str:
    """Give a text in quotes; `repr` also escapes what could not be encoded in the answer."""
    return repr(_cut(str(text)))


def shorten(text: str) -> str:
    """Give a text without quotes."""
    return quote(text)[1:-1]


def shorten_path(path: str) -> str:
    """Give a path, or how it begins where it is long."""
    return path if len(path) <= MAX_PATH else path[:MAX_PATH] + "…"


def list_names(names: Sequence[str]) -> str:
    """Give names in quotes, and the number of them where they are many."""
    shown = ", ".join(quote(name) for name in names[:MAX_LISTED])
    return shown if len(names) <= MAX_LISTED else f"{shown} … ({len(names)} in all)"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Give the question for the known name that is nearest, with a space in front; nothing where none is near."""
    close = difflib.get_close_matches(name[:MAX_QUOTED], known, n=1)
    return f" Did you mean {quote(close[0])}?" if close else ""


def _cut(text: str) -> str:
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "…"
