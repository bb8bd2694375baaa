"""Linear operators as ONNX spells them, read into one form (`Linear`, float64) and written back.

Gemm, MatMul with or without an Add behind it, and Conv differ in where weight and bias lie, in which axis is the
output's, and in attributes that the algebra must know (Gemm's α, β and transposes): all of that is here, so that the
rules and the algebra see one kind of layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from model_export.affine import Array, Linear
from model_export.fold.ledger import Refused
from model_export.fold.values import constant, constant_tensor, input_of, is_constant, is_op, name_of, rank


@dataclass(frozen=True)
class Layer:
    """A linear operator of the graph: `node`, the `Add` of its bias where that is a node of its own, and its map."""

    node: ir.Node
    linear: Linear
    add: ir.Node | None = None

    @property
    def name(self) -> str:
        """The operator's name in the graph."""
        return name_of(self.node)

    @property
    def dtype(self) -> ir.DataType:
        """The dtype of the weight, in which results are rounded."""
        return _weight_tensor(self.node).dtype


def read_layer(node: ir.Node, opset: int) -> Layer:
    """Read a Gemm, MatMul or Conv.

    Raises:
        Refused: it is something else, its parameters are not constant, or its form leaves the algebra.
    """
    if is_op(node, "Gemm"):
        return _read_gemm(node, opset)
    if is_op(node, "MatMul"):
        return _read_matmul(node)
    if is_op(node, "Conv"):
        return _read_conv(node)
    raise Refused(f"{node.op_type} ({name_of(node)}) does not absorb a scale and a shift")


def bias_shift_is_exact(layer: Layer) -> bool:
    """Whether a shift of the layer's input is a shift of its output: not where a convolution reads padded zeros."""
    return not is_op(layer.node, "Conv") or not _is_padded(layer.node)


def weight_of(layer: Layer) -> Array:
    """The layer's weight in the layout of its operator (α and β have become part of weight and bias)."""
    weight = layer.linear.weight
    if is_op(layer.node, "MatMul") or (is_op(layer.node, "Gemm") and not _int(layer.node, "transB", 0)):
        return np.ascontiguousarray(weight.T)
    return weight


def _read_gemm(node: ir.Node, opset: int) -> Layer:
    if opset < 7:
        raise Refused(f"{name_of(node)} is a Gemm of opset {opset}, whose bias broadcasts by other rules")
    weight = _matrix(node, constant(input_of(node, 1), f"the weight of {name_of(node)}"))
    weight = weight if _int(node, "transB", 0) else weight.T
    alpha, beta = _float(node, "alpha", 1.0), _float(node, "beta", 1.0)
    return Layer(node, Linear(alpha * weight, beta * _bias(node, len(weight))))


def _read_matmul(node: ir.Node) -> Layer:
    weight = _matrix(node, constant(input_of(node, 1), f"the weight of {name_of(node)}")).T
    if rank(input_of(node, 0)) != 2:
        raise Refused(
            f"{name_of(node)} is a MatMul whose input is not proved to have two axes: its channels may not be axis 1"
        )
    add = _bias_add(node, len(weight))
    bias = np.zeros(len(weight)) if add is None else _row(add, _added_constant(add), len(weight))
    return Layer(node, Linear(weight, bias), add)


def _read_conv(node: ir.Node) -> Layer:
    weight = constant(input_of(node, 1), f"the weight of {name_of(node)}")
    groups = _int(node, "group", 1)
    if weight.ndim < 3 or weight.shape[0] % groups:
        raise Refused(f"{name_of(node)} is a Conv with {groups} groups and a weight of shape {weight.shape}")
    return Layer(node, Linear(weight, _bias(node, weight.shape[0]), groups))


def _weight_tensor(node: ir.Node) -> ir.TensorProtocol:
    tensor = constant_tensor(input_of(node, 1))
    if tensor is None:
        raise Refused(f"the weight of {name_of(node)} is not constant")
    return tensor


def _matrix(node: ir.Node, weight: Array) -> Array:
    if weight.ndim != 2:
        raise Refused(f"the weight of {name_of(node)} has {weight.ndim} axes, expected 2")
    return weight


def _bias(node: ir.Node, length: int) -> Array:
    if input_of(node, 2) is None:
        return np.zeros(length)
    return _row(node, constant(input_of(node, 2), f"the bias of {name_of(node)}"), length)


def _row(node: ir.Node, bias: Array, length: int) -> Array:
    """A bias that is the same for every instance, as one value for each output."""
    if bias.size not in {1, length} or bias.shape[:-1] not in {(), (1,)}:
        raise Refused(f"the bias of {name_of(node)} has shape {bias.shape}: not one value for each of {length} outputs")
    return np.broadcast_to(bias.reshape(-1), (length,))


def _bias_add(matmul: ir.Node, length: int) -> ir.Node | None:
    """The Add behind a MatMul, if it is the only reader and adds one constant for each output."""
    output = matmul.outputs[0]
    readers = output.consumers()
    if len(readers) != 1 or output.is_graph_output() or not is_op(readers[0], "Add"):
        return None
    if readers[0].graph is not matmul.graph:
        return None
    try:
        _row(readers[0], _added_constant(readers[0]), length)
    except Refused:
        return None
    return readers[0]


def _added_constant(add: ir.Node) -> Array:
    return constant(add.inputs[added_index(add)], f"what {name_of(add)} adds")


def added_index(add: ir.Node) -> int:
    """Which of an Add's two inputs is the constant."""
    return 0 if is_constant(add.inputs[0]) else 1


def _is_padded(conv: ir.Node) -> bool:
    auto_pad = conv.attributes["auto_pad"].as_string() if "auto_pad" in conv.attributes else "NOTSET"
    pads = conv.attributes["pads"].as_ints() if "pads" in conv.attributes else ()
    return auto_pad not in {"NOTSET", "VALID"} or (auto_pad == "NOTSET" and any(pads))


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _float(node: ir.Node, name: str, default: float) -> float:
    return node.attributes[name].as_float() if name in node.attributes else default
