"""What a document asks of the model: which outputs, in which form, by when; and that its one input is the model's.

It looks at all but the numbers. Parameters that it does not know are passed over, as other servers have others; those
that would change the answer elsewhere, and can not here, are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from service.bundle import Signature, TensorSpec
from service.errors import InstanceInvalid
from service.protocols.open_inference.datatypes import DATATYPE_OF, DATATYPES
from service.protocols.open_inference.document import (
    Document,
    InputDocument,
    OutputDocument,
    Parameters,
    invalid,
)
from service.wording import describe, did_you_mean, list_names, quote, shorten

MAX_INSTANCES = 2**31
MAX_MICROSECONDS = 2**63
MAX_DIMENSIONS = 8
MAX_CLASSES = 1000
EMPTY = (0, "", False, None)


class WantedOutput(NamedTuple):
    """One output of the answer, by its place in the signature; as bytes, or as JSON.

    With `num_classes` it is that many of its largest values, each as text with its place and its label.
    """

    place: int
    is_binary: bool
    num_classes: int = 0


class Asked(NamedTuple):
    """What a document asks for, and how many instances it says to hold.

    `binary_size` is None where the numbers stand in the document itself.
    """

    id: str | None
    outputs: tuple[WantedOutput, ...]
    timeout_seconds: float | None
    num_instances: int
    binary_size: int | None


def read_asked(document: Document, signature: Signature) -> Asked:
    """Check a document against a signature.

    Raises:
        RequestInvalid: it asks for something that there is not.
        InstanceInvalid: its input is not the model's.
    """
    parameters = document.parameters
    _check_parameters(parameters)
    tensor = _find_input(document.inputs, signature.input)
    is_binary = _read_flag(parameters, "binary_data_output", "parameters")
    asked = Asked(
        document.id,
        _read_outputs(document.outputs, signature, is_binary=is_binary),
        _read_timeout(parameters),
        _read_num_instances(tensor, signature.input),
        _read_binary_size(tensor),
    )
    _check_num_classes(asked, signature)
    return asked


# --- the request's parameters ----------------------------------------------------------------------------------------


def _check_parameters(parameters: Parameters) -> None:
    for name, value in parameters.items():
        if name.startswith("triton_"):
            raise invalid(f"parameters.{shorten(name)}", expected="no name that starts with 'triton_'", got=quote(name))
        if name.startswith("sequence_") and value not in EMPTY:
            path = f"parameters.{shorten(name)}"
            raise invalid(path, expected="0, as the model keeps nothing between requests", got=describe(value))


def _read_timeout(parameters: Parameters) -> float | None:
    microseconds = parameters.get("timeout")
    if microseconds is None:
        return None
    if not _is_whole(microseconds) or not 0 <= microseconds < MAX_MICROSECONDS:
        raise invalid("parameters.timeout", expected="a whole number of microseconds", got=describe(microseconds))
    return microseconds / 1e6 or None


def _read_flag(parameters: Parameters, name: str, path: str, *, otherwise: bool = False) -> bool:
    value = parameters.get(name, otherwise)
    if not isinstance(value, bool):
        raise invalid(f"{path}.{name}", expected="true or false", got=describe(value))
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse_shared_memory(parameters: Parameters, path: str) -> None:
    for name in parameters:
        if name.startswith("shared_memory_"):
            where = f"{path}.{shorten(name)}"
            raise invalid(where, expected="tensors in the body", got="a region of shared memory, which is not offered")


# --- the input -------------------------------------------------------------------------------------------------------


def _find_input(inputs: Sequence[InputDocument], spec: TensorSpec) -> InputDocument:
    """Find the model's only input; with it, nothing else may stand there."""
    for place, tensor in enumerate(inputs):
        if tensor.name != spec.name:
            raise _unknown(f"inputs[{place}].name", tensor.name, [spec.name], what="input")
    if len(inputs) != 1:
        got = "it more than once" if inputs else "no input"
        raise invalid("inputs", expected=f"the input {quote(spec.name)} once", got=got)
    _check_datatype(inputs[0], spec)
    _refuse_shared_memory(inputs[0].parameters, "inputs[0].parameters")
    return inputs[0]


def _check_datatype(tensor: InputDocument, spec: TensorSpec) -> None:
    wanted, got = DATATYPE_OF[spec.dtype], tensor.datatype
    if got == wanted:
        return
    path = "inputs[0].datatype"
    if got not in DATATYPES:
        raise _unknown(path, got, DATATYPES, what="datatype", nearest=got.upper())
    raise InstanceInvalid(
        f"{path}: expected {wanted}, which is the model's, got {got}; nothing is converted here",
        field=path,
        expected=wanted,
        got=got,
    )


def _read_num_instances(tensor: InputDocument, spec: TensorSpec) -> int:
    shape = tensor.shape
    fits = all(map(_is_whole, shape)) and tuple(shape[1:]) == spec.shape and 1 <= shape[0] < MAX_INSTANCES
    if shape and fits:
        return int(shape[0])
    expected = f"[n, {', '.join(map(str, spec.shape))}] with n ≥ 1"
    got = shorten("[" + ", ".join(describe(size) for size in shape[:MAX_DIMENSIONS]) + "]")
    raise InstanceInvalid(
        f"inputs[0].shape: expected {expected}, got {got}", field="inputs[0].shape", expected=expected, got=got
    )


def _read_binary_size(tensor: InputDocument) -> int | None:
    """Read how many bytes after the document are the input's; None if its numbers stand in the document."""
    size = tensor.parameters.get("binary_data_size")
    if (size is None) == (tensor.data is None):
        got = "neither" if size is None else "both"
        raise invalid("inputs[0]", expected="either `data` or `parameters.binary_data_size`", got=got)
    if size is None:
        return None
    if not _is_whole(size) or size < 0:
        path = "inputs[0].parameters.binary_data_size"
        raise invalid(path, expected="a whole number of bytes", got=describe(size))
    return int(size)


# --- the outputs -----------------------------------------------------------------------------------------------------


def _read_outputs(
    outputs: Sequence[OutputDocument], signature: Signature, *, is_binary: bool
) -> tuple[WantedOutput, ...]:
    """Read which outputs are wanted; all where none is named."""
    if not outputs:
        return tuple(WantedOutput(place, is_binary) for place in range(len(signature.outputs)))
    names = [spec.name for spec in signature.outputs]
    wanted = tuple(_read_output(output, f"outputs[{at}]", names, is_binary) for at, output in enumerate(outputs))
    for at, output in enumerate(wanted):
        if output.place in [other.place for other in wanted[:at]]:
            name = names[output.place]
            raise invalid(f"outputs[{at}].name", expected="each output once", got=f"{quote(name)} again")
    return wanted


def _read_output(output: OutputDocument, path: str, names: list[str], is_binary: bool) -> WantedOutput:
    if output.name not in names:
        raise _unknown(f"{path}.name", output.name, names, what="output")
    parameters, where = output.parameters, f"{path}.parameters"
    _refuse_shared_memory(parameters, where)
    return WantedOutput(
        names.index(output.name),
        _read_flag(parameters, "binary_data", where, otherwise=is_binary),
        _read_num_classes(parameters, where),
    )


def _read_num_classes(parameters: Parameters, path: str) -> int:
    number = parameters.get("classification", 0)
    if not _is_whole(number) or number < 0:
        raise invalid(f"{path}.classification", expected="how many classes to give", got=describe(number))
    return int(number)


def _check_num_classes(asked: Asked, signature: Signature) -> None:
    """Refuse more classes than are written soon: each is a text by itself."""
    wanted = [min(each.num_classes, math.prod(signature.outputs[each.place].shape)) for each in asked.outputs]
    total = asked.num_instances * sum(wanted)
    if total > MAX_CLASSES:
        expected = f"at most {MAX_CLASSES:,} classes in all, of all instances"
        raise invalid("classification", expected=expected, got=f"{total:,}")


def _unknown(path: str, name: str, known: Sequence[str], *, what: str, nearest: str = "") -> InstanceInvalid:
    expected = f"one of {list_names(known)}" if len(known) > 1 else quote(known[0])
    return InstanceInvalid(
        f"{path}: {quote(name)} is no known {what}; expected {expected}.{did_you_mean(nearest or name, known)}",
        field=path,
        expected=expected,
        got=quote(name),
    )
