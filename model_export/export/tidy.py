"""What the exporter leaves around the layers is cleared away; no layer is touched, nothing is fused.

    constants      expressions of weights and shapes are computed now: transposed weights, expanded scales
    Reshape        a target computed from the size of the batch becomes the constant (−1, k, …)
    Mul            a factor of exactly 1.0, as the exporter writes around Elu, goes
    Conv           a bias that the network does not have goes (the exporter's own is zero, and for Conv3d misshapen)
    Dropout        in inference mode, and Identity, pass their input on

Each keeps every value of the graph as it was, bit for bit.
"""

from __future__ import annotations

import sys
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from onnx_ir.passes.common import IdentityEliminationPass, ShapeInferencePass
from onnxscript import optimizer

from model_export.ir import ir

UNLIMITED = sys.maxsize


def tidy(model: ir.Model) -> None:
    """Clear `model` up, in place."""
    parameters = frozenset(model.graph.initializers)
    optimizer.fold_constants(model, input_size_limit=UNLIMITED, output_size_limit=UNLIMITED)
    for node in list(model.graph):
        _tidy_node(model.graph, node, parameters)
    IdentityEliminationPass()(model)
    optimizer.remove_unused_nodes(model)
    ShapeInferencePass()(model)


def is_inference_dropout(node: ir.Node) -> bool:
    """Whether `node` is a Dropout that passes its input on: the input `training_mode` is absent, or constant false."""
    if node.op_type != "Dropout":
        return False
    training_mode = node.inputs[2] if len(node.inputs) > 2 else None
    return training_mode is None or _constant(training_mode) == np.False_


def _tidy_node(graph: ir.Graph, node: ir.Node, parameters: AbstractSet[str]) -> None:
    if node.op_type == "Reshape":
        _fix_reshape_target(graph, node)
    elif node.op_type == "Conv":
        _drop_hidden_bias(node, parameters)
    elif node.op_type == "Mul" or is_inference_dropout(node):
        _pass_on(graph, node)


def _fix_reshape_target(graph: ir.Graph, node: ir.Node) -> None:
    """Where the exporter proved all axes but one, that one can be left to be inferred."""
    shape = node.outputs[0].shape
    if shape is None or _constant(node.inputs[1]) is not None:
        return
    target = [axis if isinstance(axis, int) else -1 for axis in shape]
    if target.count(-1) == 1 and 0 not in target:
        node.replace_input_with(1, _new_constant(graph, f"{node.outputs[0].name}_shape", np.array(target, np.int64)))
        node.attributes.pop("allowzero", None)


def _drop_hidden_bias(node: ir.Node, parameters: AbstractSet[str]) -> None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None or bias.name in parameters:
        return
    values = _constant(bias)
    if values is not None and not values.any():
        node.resize_inputs(2)


def _pass_on(graph: ir.Graph, node: ir.Node) -> None:
    """Let the readers of `node` read its input instead, where it is the same value; a graph output keeps its name."""
    source, result = _unchanged_input(node), node.outputs[0]
    if source is None or source.is_graph_input() or source.is_graph_output():
        return
    source.type, source.shape = result.type or source.type, result.shape or source.shape
    name = result.name
    ir.convenience.replace_all_uses_with(result, source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if source.is_graph_output():
        source.name = name


def _unchanged_input(node: ir.Node) -> ir.Value | None:
    """The input that `node` passes on unchanged: a Dropout's first, or what a Mul multiplies by the scalar 1.0."""
    if node.op_type == "Dropout":
        return node.inputs[0]
    first, second = node.inputs
    if _is_one(second):
        return first
    return second if _is_one(first) else None


def _is_one(value: ir.Value | None) -> bool:
    """A scalar has no shape of its own to give to the product; a tensor of ones could broadcast."""
    values = _constant(value)
    return values is not None and values.ndim == 0 and values == 1.0


def _constant(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _new_constant(graph: ir.Graph, name: str, values: np.ndarray[Any, Any]) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(values, name=name))
    graph.register_initializer(value)
    return value
