"""The JSON part of an inference request, as values: quickly where it is usual, thoroughly where it is not.

Both ways give the same document for the same text, or the quick one gives none. What the thorough way passes over, as
the protocol may grow, are keys that it does not know; of those that it knows, none may stand twice. `null` is taken for
absence, as some clients write out what they leave empty.

The quick way cuts the one long list of numbers out first, and decodes the rest with an empty list in its place. What
was cut out is not looked at here: it is read as the tensor that it should be, or refused there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from service.errors import RequestInvalid
from service.json_text import JsonObject, read_json
from service.wording import describe, quote, shorten, shorten_path

Parameters = dict[str, Any]
PlainParameters = dict[str, bool | int | float | str | None]
NoNumbers = Annotated[list[int], msgspec.Meta(max_length=0)]
EXPECTED = '{"inputs":[{"name":…,"shape":…,"datatype":…,"data":…}]}'
DATA_KEY = b'"data"'
SPACE = b" \t\r\n"
MAX_NAMES = 5


class InputDocument(msgspec.Struct, frozen=True, gc=False):
    """One entry of `inputs`. `data` is JSON text if it was read quickly, else values; None where there is none."""

    name: str
    shape: list[Any]
    datatype: str
    data: Any
    parameters: Parameters


class OutputDocument(msgspec.Struct, frozen=True, gc=False):
    """One entry of `outputs`."""

    name: str
    parameters: Parameters


class Document(msgspec.Struct, frozen=True, gc=False):
    """A whole inference request, but for the bytes that follow it."""

    id: str | None
    parameters: Parameters
    inputs: list[InputDocument]
    outputs: list[OutputDocument]


# --- the quick way ---------------------------------------------------------------------------------------------------


class _QuickInput(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    datatype: str
    data: NoNumbers | msgspec.UnsetType = msgspec.UNSET
    parameters: PlainParameters | msgspec.UnsetType = msgspec.UNSET


class _QuickOutput(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    name: str
    parameters: PlainParameters | msgspec.UnsetType = msgspec.UNSET


class _QuickDocument(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    inputs: list[_QuickInput]
    id: str | msgspec.UnsetType = msgspec.UNSET
    parameters: PlainParameters | msgspec.UnsetType = msgspec.UNSET
    outputs: list[_QuickOutput] | msgspec.UnsetType = msgspec.UNSET


def plan_quick_reading() -> Callable[[bytes], Document | None]:
    """Plan the reading of usual documents, with one input; None for all others."""
    decode = msgspec.json.Decoder(_QuickDocument).decode

    def read(text: bytes) -> Document | None:
        rest, numbers = _cut_out_numbers(text)
        if b"\\" in rest:
            return None
        try:
            document = decode(rest)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        # As many colons as keys: so none stands twice, of which the decoder has kept the last.
        if len(document.inputs) != 1 or rest.count(b":") != _count_colons(document):
            return None
        return _complete(document, numbers)

    return read


def _cut_out_numbers(text: bytes) -> tuple[bytes, bytes]:
    """Cut the list behind the first `"data":` out and leave `[]`; no numbers where it is not as usual.

    It ends with the last bracket before the next brace or quote, neither of which is in a list of numbers. Should it be
    no list, or should brackets be in it that are not its own, then what was cut out is not JSON. Should the key be
    anyone's but the input's, then the decoder refuses the list that is left.
    """
    key = text.find(DATA_KEY)
    start = text.find(b"[", key)
    if key < 0 or start < 0 or text[key + len(DATA_KEY) : start].strip(SPACE) != b":":
        return text, b""
    stop = text.find(b"}", start)
    quote_mark = text.find(b'"', start, stop)
    end = text.rfind(b"]", start, stop if quote_mark < 0 else quote_mark) + 1
    if not end:
        return text, b""
    return text[:start] + b"[]" + text[end:], text[start:end]


def _count_colons(document: _QuickDocument) -> int:
    """Count the colons of a document without its numbers, if no key stands twice."""
    tensor, given = document.inputs[0], document.id
    number = 4 + tensor.name.count(":") + _count_in(tensor.parameters) + _count_in(document.parameters)
    if tensor.data is not msgspec.UNSET:
        number += 1
    if given is not msgspec.UNSET:
        number += 1 + given.count(":")
    if document.outputs is not msgspec.UNSET:
        number += 1 + sum(1 + output.name.count(":") + _count_in(output.parameters) for output in document.outputs)
    return number


def _count_in(parameters: PlainParameters | msgspec.UnsetType) -> int:
    return 0 if parameters is msgspec.UNSET else 1 + len(parameters)


def _complete(document: _QuickDocument, numbers: bytes) -> Document | None:
    """Put what was cut out in its place; None where it is not the data of the input."""
    tensor = document.inputs[0]
    if (tensor.data is msgspec.UNSET) == bool(numbers):
        return None
    parameters = _given(tensor.parameters, {})
    return Document(
        _given(document.id, None),
        _given(document.parameters, {}),
        [InputDocument(tensor.name, tensor.shape, tensor.datatype, numbers or None, parameters)],
        [OutputDocument(output.name, _given(output.parameters, {})) for output in _given(document.outputs, ())],
    )


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value is msgspec.UNSET else value


# --- the thorough way ------------------------------------------------------------------------------------------------


def read_document(text: bytes) -> Document:
    """Read any document.

    Raises:
        BodyMalformed: the text is not JSON.
        RequestInvalid: it is JSON, but not of this form.
    """
    members = _read_object(read_json(text, EXPECTED), "")
    return Document(
        _read_id(members.get("id")),
        _read_parameters(members.get("parameters"), "parameters"),
        [_read_input(entry, f"inputs[{place}]") for place, entry in enumerate(_read_inputs(members))],
        [_read_output(entry, f"outputs[{place}]") for place, entry in enumerate(_read_outputs(members))],
    )


def _read_object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, JsonObject):
        raise invalid(path, expected="an object", got=describe(value))
    for name, count in Counter(name for name, _ in value.members).items():
        if count > 1:
            raise invalid(_join(path, name), expected="the key once", got=f"it {count} times")
    return dict(value.members)


def _read_id(value: Any) -> str | None:
    if value is None:
        return None
    given = _read_text(value, "id")
    try:
        given.encode()
    except UnicodeEncodeError as err:
        raise invalid("id", expected="a string", got=f"half a surrogate pair in {quote(given)}") from err
    return given


def _read_inputs(members: dict[str, Any]) -> list[Any]:
    if members.get("inputs") is not None:
        return _read_list(members["inputs"], "inputs")
    names = ", ".join(quote(name) for name in list(members)[:MAX_NAMES])
    raise invalid("inputs", expected="a list of tensors", got=f"only {names}" if names else "nothing")


def _read_outputs(members: dict[str, Any]) -> list[Any]:
    outputs = members.get("outputs")
    return [] if outputs is None else _read_list(outputs, "outputs")


def _read_input(value: Any, path: str) -> InputDocument:
    members = _read_object(value, path)
    return InputDocument(
        _read_text(members.get("name"), f"{path}.name"),
        _read_list(members.get("shape"), f"{path}.shape"),
        _read_text(members.get("datatype"), f"{path}.datatype"),
        members.get("data"),
        _read_parameters(members.get("parameters"), f"{path}.parameters"),
    )


def _read_output(value: Any, path: str) -> OutputDocument:
    members = _read_object(value, path)
    parameters = _read_parameters(members.get("parameters"), f"{path}.parameters")
    return OutputDocument(_read_text(members.get("name"), f"{path}.name"), parameters)


def _read_parameters(value: Any, path: str) -> Parameters:
    return {} if value is None else _read_object(value, path)


def _read_list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise invalid(path, expected="a list", got=describe(value))
    return value


def _read_text(value: Any, path: str) -> str:
    if type(value) is not str:  # a subclass stands for a number that is not finite
        raise invalid(path, expected="a string", got=describe(value))
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{shorten(name)}" if path else shorten(name)


def invalid(path: str, *, expected: str, got: str) -> RequestInvalid:
    """Say what should have stood at a path of the document."""
    field = shorten_path(path)
    where = field or "the body"
    return RequestInvalid(f"{where}: expected {expected}, got {got}", field=field, expected=expected, got=got)
