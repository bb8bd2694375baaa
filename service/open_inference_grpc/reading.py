"""What a message asks of the model, in the words of the protocol over HTTP: so that one place says what may be asked.

Only the numbers are left out: they stand in the message in other ways than in JSON.
"""

from __future__ import annotations

from typing import Any

from service.bundle import Signature
from service.protocols.open_inference.asking import Asked, read_asked
from service.protocols.open_inference.document import Document, InputDocument, OutputDocument, invalid

# As many as are looked at; more than that are wrong anyway, and might be millions.
MAX_INPUTS = 4
MAX_DIMENSIONS = 64
MAX_PARAMETERS = 64
# What clients that speak both protocols leave standing in an input: over gRPC it says nothing.
ABOUT_HTTP = "binary_data_size"


def read_request(request: Any, signature: Signature) -> Asked:
    """Check a ModelInferRequest against a signature, but for its numbers.

    Raises:
        RequestInvalid: it asks for something that there is not.
        InstanceInvalid: its input is not the model's.
    """
    # With one output more than there are, one is unknown or stands there twice.
    return read_asked(_to_document(request, max_outputs=len(signature.outputs) + 1), signature)


def _to_document(request: Any, *, max_outputs: int) -> Document:
    return Document(
        id=request.id or None,
        parameters=_read_parameters(request.parameters),
        inputs=[_to_input(tensor) for tensor in request.inputs[:MAX_INPUTS]],
        outputs=[_to_output(output) for output in request.outputs[:max_outputs]],
    )


def _to_output(output: Any) -> OutputDocument:
    return OutputDocument(output.name, _read_parameters(output.parameters))


def _to_input(tensor: Any) -> InputDocument:
    parameters = _read_parameters(tensor.parameters)
    parameters.pop(ABOUT_HTTP, None)
    return InputDocument(tensor.name, list(tensor.shape[:MAX_DIMENSIONS]), tensor.datatype, (), parameters)


def _read_parameters(parameters: Any) -> dict[str, Any]:
    if len(parameters) > MAX_PARAMETERS:
        raise invalid("parameters", expected=f"at most {MAX_PARAMETERS}", got=str(len(parameters)))
    return {name: _read_parameter(parameter) for name, parameter in parameters.items()}


def _read_parameter(parameter: Any) -> Any:
    """Give a parameter's value; None if it has none."""
    chosen = parameter.WhichOneof("parameter_choice")
    return None if chosen is None else getattr(parameter, chosen)
