"""Carries out a fold plan on the model it was made for, and decides nothing: weights are rounded here, once.

Weights that another node reads too are replaced by a copy, never written into.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from model_export.affine import Array
from model_export.fold.layers import Layer, added_index, weight_of
from model_export.fold.plan import FoldPlan
from model_export.fold.values import is_op


def apply_plan(model: ir.Model, plan: FoldPlan) -> None:
    """Change `model`, whose nodes the plan names, as the plan says."""
    graph = model.graph
    parameters = [value for node in plan.gone for value in node.inputs[1:]]
    for batchnorm in plan.gone:
        _bypass(graph, batchnorm)
    for layer in plan.layers:
        _write_layer(graph, layer)
    for value in parameters:
        _remove_if_unused(graph, value)


def _bypass(graph: ir.Graph, batchnorm: ir.Node) -> None:
    source, output = batchnorm.inputs[0], batchnorm.outputs[0]
    if source is None:
        raise ValueError(f"{batchnorm.name} has no input")
    was_output, name = output.is_graph_output(), output.name
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(batchnorm, safe=True)
    if was_output:
        source.name, source.type, source.shape = name, output.type, output.shape


def _write_layer(graph: ir.Graph, layer: Layer) -> None:
    node = layer.node
    _set_constant(graph, node, 1, _rounded(weight_of(layer), layer, "weight"))
    if is_op(node, "MatMul"):
        _write_added_bias(graph, layer)
        return
    for name in ("alpha", "beta"):
        node.attributes.pop(name, None)
    if _has_input(node, 2) or layer.linear.bias.any():
        _set_constant(graph, node, 2, _rounded(layer.linear.bias, layer, "bias"))


def _write_added_bias(graph: ir.Graph, layer: Layer) -> None:
    if layer.add is None and not layer.linear.bias.any():
        return
    add = layer.add or _insert_add(graph, layer.node)
    index = added_index(add) if layer.add else 1
    _set_constant(graph, add, index, _rounded(layer.linear.bias, layer, "bias"))


def _rounded(values: Array, layer: Layer, what: str) -> ir.TensorProtocol:
    """The one rounding of a fold, from float64 to the dtype of the layer."""
    rounded = np.ascontiguousarray(values).astype(layer.dtype.numpy())
    return ir.Tensor(rounded, dtype=layer.dtype, name=f"{layer.name}.{what}")


def _insert_add(graph: ir.Graph, matmul: ir.Node) -> ir.Node:
    """Put an Add behind the MatMul that takes over its readers, and its name where that is an output of the model."""
    output = matmul.outputs[0]
    add = ir.Node("", "Add", [output, None], name=f"{matmul.name}.shift")
    shifted = add.outputs[0]
    shifted.shape, shifted.type = output.shape, output.type
    shifted.name = output.name
    output.name = _unused_name(graph, f"{output.name}.unshifted")
    graph.insert_after(matmul, add)
    output.replace_all_uses_with(shifted, replace_graph_outputs=True)
    add.replace_input_with(0, output)
    return add


def _set_constant(graph: ir.Graph, node: ir.Node, index: int, tensor: ir.TensorProtocol) -> None:
    old = node.inputs[index] if _has_input(node, index) else None
    name = old.name if old is not None else tensor.name
    tensor.name = _unused_name(graph, str(name))
    new = ir.Value(
        name=tensor.name, shape=ir.Shape(np.shape(tensor.numpy())), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new)
    if _remove_if_unused(graph, old):
        new.name = name
    graph.register_initializer(new)


def _remove_if_unused(graph: ir.Graph, value: ir.Value | None) -> bool:
    """Remove a constant that no node reads any more; say whether it was removed."""
    if value is None or value.uses() or value.is_graph_output():
        return False
    if value.is_initializer():
        return graph.initializers.pop(str(value.name), None) is not None
    producer = value.producer()
    if producer is None or producer.graph is not graph or not is_op(producer, "Constant"):
        return False
    graph.remove(producer)
    return True


def _has_input(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None


def _unused_name(graph: ir.Graph, name: str) -> str:
    taken = {value.name for value in graph.initializers.values()} | {value.name for value in graph.inputs}
    taken |= {output.name for node in graph for output in node.outputs}
    candidates = (name, *(f"{name}.folded{count or ''}" for count in range(len(taken) + 1)))
    return next(candidate for candidate in candidates if candidate not in taken)
