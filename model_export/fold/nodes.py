"""What a node is and holds: its operator, its name, its inputs and its attributes, read with ONNX's defaults."""

from __future__ import annotations

from collections.abc import Iterable

from model_export.ir import ir

ONNX_DOMAINS = ("", "ai.onnx")
FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE})


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether the node is one of these operators of the ONNX standard."""
    return node is not None and node.domain in ONNX_DOMAINS and node.op_type in op_types


def name_of(node: ir.Node) -> str:
    """A node's own name; where it has none, that of its output, which no other node has."""
    return node.name or next((str(output.name) for output in node.outputs), node.op_type)


def names_of(nodes: Iterable[ir.Node]) -> tuple[str, ...]:
    """The names of nodes, each once, in order."""
    return tuple(dict.fromkeys(name_of(node) for node in nodes))


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """The node's input at `index`; None where it is left out."""
    return node.inputs[index] if len(node.inputs) > index else None


def is_read(value: ir.Value) -> bool:
    """Whether anybody sees the value: another node, or the caller."""
    return bool(value.uses()) or value.is_graph_output()


def has_other_outputs(node: ir.Node) -> bool:
    """Whether anybody sees an output of the node beside the first."""
    return any(is_read(output) for output in node.outputs[1:])


def int_of(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    return node.attributes[name].as_int() if name in node.attributes else default


def float_of(node: ir.Node, name: str, default: float) -> float:
    """A float attribute."""
    return node.attributes[name].as_float() if name in node.attributes else default


def string_of(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    return node.attributes[name].as_string() if name in node.attributes else default


def ints_of(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """An attribute that is a list of integers; None where it is left out."""
    return tuple(node.attributes[name].as_ints()) if name in node.attributes else None


def sees_only_the_shape(node: ir.Node, index: int) -> bool:
    """Whether a reader looks at the shape or dtype of the value alone, which no fold changes."""
    return is_op(node, "Shape", "Size") or (is_op(node, "CastLike") and index == 1)


def is_padded(node: ir.Node) -> bool:
    """Whether a convolution or pool reads beyond its input."""
    auto_pad = string_of(node, "auto_pad", "NOTSET")
    return auto_pad not in {"NOTSET", "VALID"} or (auto_pad == "NOTSET" and any(ints_of(node, "pads") or ()))
