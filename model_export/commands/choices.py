"""A flag that takes one of a few words: the words stand once, in the Literal that the rooms use."""

from __future__ import annotations

from typing import Any, get_args

from model_export.errors import ExportError


def choose(flag: str, value: str, choices: Any) -> Any:
    """`value`, which is one of the words of the Literal `choices`.

    Raises:
        ExportError: it is none of them; names them.
    """
    known = get_args(choices)
    if value not in known:
        raise ExportError(f"{flag} is {value!r}: expected one of {', '.join(known)}")
    return value
