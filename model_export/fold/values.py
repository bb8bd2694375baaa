"""Facts about the values of a graph that rules rely on: what is constant, who reads it, what shape is proved.

Each function answers or refuses with a reason; none changes anything.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from model_export.affine import Array
from model_export.fold.ledger import Refused

ONNX_DOMAINS = ("", "ai.onnx")


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether the node is one of these operators of the ONNX standard."""
    return node is not None and node.domain in ONNX_DOMAINS and node.op_type in op_types


def name_of(node: ir.Node) -> str:
    """A node's own name; where it has none, that of its output, which no other node has."""
    return node.name or next((str(output.name) for output in node.outputs), node.op_type)


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is the same at every run: an initializer that no caller can override, or a Constant."""
    return constant_tensor(value) is not None


def constant(value: ir.Value | None, what: str) -> Array:
    """The constant's elements in float64. `what` names it in the reason.

    Raises:
        Refused: it is computed while the model runs, or a caller may override it.
    """
    if value is not None and value.is_initializer() and value.is_graph_input():
        raise Refused(f"{what} ({value.name}) is also an input of the graph: a caller may override it")
    tensor = constant_tensor(value)
    if tensor is None:
        raise Refused(f"{what} ({value.name if value else 'absent'}) is not constant")
    return np.asarray(tensor.numpy(), dtype=np.float64)


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of a constant value in its own dtype; None where the value is not constant."""
    if value is None or value.is_graph_input():
        return None
    if value.is_initializer():
        return value.const_value
    producer = value.producer()
    return _tensor_of(producer) if producer is not None and is_op(producer, "Constant") else None


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """The node's input at `index`; None where it is left out."""
    return node.inputs[index] if len(node.inputs) > index else None


def _tensor_of(node: ir.Node) -> ir.TensorProtocol | None:
    """What a Constant holds. Not onnx-ir's own way, which writes a name into the tensor that copies share."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            return attribute.as_tensor()
        if name in _DTYPES:
            return ir.Tensor(np.asarray(attribute.value, dtype=_DTYPES[name]))
    return None


_DTYPES = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def rank(value: ir.Value | None) -> int | None:
    """The number of axes, where it is known."""
    return None if value is None or value.shape is None else len(value.shape)


def features_behind_flatten(before: ir.Value, after: ir.Value) -> int:
    """How many neighbouring features each channel of `before` (batch, channels, *spatial) becomes in `after`.

    Proof: if `after` has two axes and the second is as long as channels × spatial, all of them known, then the first
    is the batch, since a reshape neither makes nor loses elements, and elements keep their row-major order.

    Raises:
        Refused: the lengths do not prove that.
    """
    if rank(before) is None or before.shape is None or after.shape is None:
        raise Refused(f"the shape of {before.name if before.shape is None else after.name} is not known")
    per_instance = [length for length in before.shape[1:] if isinstance(length, int)]
    features = after.shape[1] if rank(after) == 2 else None
    if len(per_instance) != len(before.shape) - 1 or features != math.prod(per_instance) or not per_instance:
        raise Refused(
            f"the reshape of {before.name} {_text(before)} to {after.name} {_text(after)} "
            "is not proved to keep channels together"
        )
    return math.prod(per_instance[1:])


def _text(value: ir.Value) -> str:
    return "[" + ", ".join(str(length) for length in value.shape or ()) + "]"
