"""Carries out a fold plan on the model it was made for, and decides nothing: weights are rounded here, once.

Weights that another node reads too are replaced by a copy, never written into.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from model_export.affine import Array
from model_export.fold.layers import Layer, added_index, weight_of
from model_export.fold.plan import FoldPlan
from model_export.fold.values import input_of, is_op, name_of


@dataclass(frozen=True)
class _Place:
    """The graph that is changed, and every name in it and in the bodies of its nodes: none is given twice."""

    graph: ir.Graph
    taken: set[str]

    def name(self, wanted: str) -> str:
        """`wanted`, or what is free and closest to it; it is taken from now on."""
        candidates = itertools.chain([wanted], (f"{wanted}.folded{count or ''}" for count in itertools.count()))
        free = next(candidate for candidate in candidates if candidate not in self.taken)
        self.taken.add(free)
        return free


def apply_plan(model: ir.Model, plan: FoldPlan) -> None:
    """Change `model`, whose nodes the plan names, as the plan says."""
    place = _Place(model.graph, _names(model))
    parameters = [value for node in plan.gone for value in node.inputs[1:]]
    for batchnorm in plan.gone:
        _bypass(place, batchnorm)
    for layer in plan.layers:
        _write_layer(place, layer)
    for value in parameters:
        _remove_if_unused(place, value)


def _bypass(place: _Place, batchnorm: ir.Node) -> None:
    source, output = batchnorm.inputs[0], batchnorm.outputs[0]
    if source is None:
        raise ValueError(f"{batchnorm.name} has no input")
    was_output, name = output.is_graph_output(), output.name
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    place.graph.remove(batchnorm, safe=True)
    if was_output:
        source.name, source.type, source.shape = name, output.type, output.shape


def _write_layer(place: _Place, layer: Layer) -> None:
    node = layer.node
    _set_constant(place, node, 1, _rounded(weight_of(layer), layer, "weight"))
    if is_op(node, "MatMul"):
        _write_added_bias(place, layer)
        return
    for name in ("alpha", "beta"):
        node.attributes.pop(name, None)
    if input_of(node, 2) is not None or layer.linear.bias.any():
        _set_constant(place, node, 2, _rounded(layer.linear.bias, layer, "bias"))


def _write_added_bias(place: _Place, layer: Layer) -> None:
    if layer.add is None and not layer.linear.bias.any():
        return
    add = layer.add or _insert_add(place, layer.node)
    index = added_index(add) if layer.add else 1
    _set_constant(place, add, index, _rounded(layer.linear.bias, layer, "bias"))


def _rounded(values: Array, layer: Layer, what: str) -> ir.TensorProtocol:
    """The one rounding of a fold, from float64 to the dtype of the layer."""
    rounded = np.ascontiguousarray(values).astype(layer.dtype.numpy())
    return ir.Tensor(rounded, dtype=layer.dtype, name=f"{layer.name}.{what}")


def _insert_add(place: _Place, matmul: ir.Node) -> ir.Node:
    """Put an Add behind the MatMul that takes over its readers, and its name where that is an output of the model."""
    output = matmul.outputs[0]
    add = ir.Node("", "Add", [output, None], name=place.name(f"{name_of(matmul)}.shift"))
    shifted = add.outputs[0]
    shifted.shape, shifted.type = output.shape, output.type
    shifted.name = output.name
    output.name = place.name(f"{output.name}.unshifted")
    place.graph.insert_after(matmul, add)
    output.replace_all_uses_with(shifted, replace_graph_outputs=True)
    add.replace_input_with(0, output)
    return add


def _set_constant(place: _Place, node: ir.Node, index: int, tensor: ir.TensorProtocol) -> None:
    old = input_of(node, index)
    name = old.name if old is not None else tensor.name
    tensor.name = place.name(str(name))
    new = ir.Value(
        name=tensor.name, shape=ir.Shape(np.shape(tensor.numpy())), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new)
    if _remove_if_unused(place, old):
        new.name = name
    place.graph.register_initializer(new)


def _remove_if_unused(place: _Place, value: ir.Value | None) -> bool:
    """Remove a constant that no node reads any more; say whether it was removed."""
    if value is None or value.uses() or value.is_graph_output():
        return False
    if value.is_initializer():
        return place.graph.initializers.pop(str(value.name), None) is not None
    producer = value.producer()
    if producer is None or producer.graph is not place.graph or not is_op(producer, "Constant"):
        return False
    place.graph.remove(producer)
    return True


def _names(model: ir.Model) -> set[str]:
    """Every name of a node or value of the model."""
    graphs = list(model.graphs())
    values = [value for graph in graphs for value in (*graph.inputs, *graph.initializers.values())]
    nodes = [node for graph in graphs for node in graph]
    names = [value.name for value in (*values, *(output for node in nodes for output in node.outputs))]
    return {name for name in (*names, *(node.name for node in nodes)) if name}
