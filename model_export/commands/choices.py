"""Words of the command line that stand for values: one of a few choices, or an amount of memory."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import ByteSize, TypeAdapter, ValidationError

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


def parse_bytes(flag: str, text: str) -> int:
    """`2GiB`, `500MB` or a plain number, as bytes.

    Raises:
        ExportError: it is none of them.
    """
    try:
        num_bytes = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as err:
        raise ExportError(f"{flag} is {text!r}: expected an amount of memory, such as 2GiB, 500MB or 0") from err
    if num_bytes < 0:
        raise ExportError(f"{flag} is {text!r}: expected 0 or more")
    return num_bytes
