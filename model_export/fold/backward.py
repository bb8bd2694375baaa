"""Folds a BatchNorm into the layer whose output it normalises: exact wherever nobody else reads that output."""

from __future__ import annotations

import onnx_ir as ir

from model_export.affine import Affine, absorb_behind
from model_export.fold.draft import Draft
from model_export.fold.layers import Layer
from model_export.fold.ledger import Refused
from model_export.fold.values import is_op, name_of


def absorb_into_previous(batchnorm: ir.Node, affine: Affine, draft: Draft) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """The layer before the BatchNorm with the affine in it, and the names of the nodes in between.

    Channels are axis 1 of a BatchNorm's input. They are the outputs of a Conv, of a Gemm, and of a MatMul whose
    result has two axes, which `read_layer` makes sure of.

    Raises:
        Refused: with the reason.
    """
    source = batchnorm.inputs[0]
    if source is None:
        raise Refused("it has no input")
    value, path = draft.origin(source)
    layer, bias = _layer_that_makes(value, draft)
    if layer.linear.num_outputs != affine.num_channels:
        raise Refused(f"{layer.name} has {layer.linear.num_outputs} outputs for {affine.num_channels} channels")
    absorbed = Layer(layer.node, absorb_behind(layer.linear, affine), layer.add)
    return (absorbed,), bias + path


def _layer_that_makes(value: ir.Value, draft: Draft) -> tuple[Layer, tuple[str, ...]]:
    node = value.producer()
    if node is None:
        raise Refused(f"no layer comes before it: {value.name} is an input of the graph")
    matmul = _matmul_before(node)
    if matmul is None:
        return draft.layer(node), ()
    layer = draft.layer(matmul)
    if layer.add is not node:
        raise Refused(f"{name_of(node)} adds what is not one constant for each output of {name_of(matmul)}")
    return layer, (name_of(node),)


def _matmul_before(add: ir.Node) -> ir.Node | None:
    producers = [value.producer() for value in add.inputs if value is not None] if is_op(add, "Add") else []
    return next((node for node in producers if node is not None and is_op(node, "MatMul")), None)
