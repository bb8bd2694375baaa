"""Folds a BatchNorm into the layers that read its output: what the exporters and runtimes leave undone.

Exact into Gemm and MatMul, and into Conv wherever it reads no padded zeros. On the way the channels may pass Flatten
or Reshape, if the shapes prove that each channel becomes a run of neighbouring features. All readers must absorb it.
"""

from __future__ import annotations

import onnx_ir as ir

from model_export.affine import Affine, absorb_before
from model_export.fold.draft import Draft, is_transparent
from model_export.fold.layers import Layer, bias_shift_is_exact
from model_export.fold.ledger import Refused
from model_export.fold.values import features_behind_flatten, is_op, name_of


def absorb_into_next(batchnorm: ir.Node, affine: Affine, draft: Draft) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """The layers that read the BatchNorm's output with the affine in them, and the names of the nodes in between.

    Raises:
        Refused: with the reason.
    """
    return _absorb(batchnorm.outputs[0], affine, draft)


def _absorb(value: ir.Value, affine: Affine, draft: Draft) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    readers = draft.readers(value)
    if not readers:
        raise Refused(f"nothing reads {value.name}")
    parts = [_absorb_at(node, index, value, affine, draft) for node, index in readers]
    return tuple(layer for layers, _ in parts for layer in layers), tuple(name for _, path in parts for name in path)


def _absorb_at(
    node: ir.Node, index: int, value: ir.Value, affine: Affine, draft: Draft
) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    if index == 0 and (is_transparent(node) or is_op(node, "Flatten", "Reshape")):
        output = node.outputs[0]
        times = 1 if is_transparent(node) else features_behind_flatten(value, output)
        layers, path = _absorb(output, affine.repeat(times), draft)
        return layers, (name_of(node), *path)
    return (_absorb_in_layer(node, index, affine, draft),), ()


def _absorb_in_layer(node: ir.Node, index: int, affine: Affine, draft: Draft) -> Layer:
    if index != 0 or ("transA" in node.attributes and node.attributes["transA"].as_int()):
        raise Refused(f"{name_of(node)} does not read it as its input with the channels on axis 1")
    layer = draft.layer(node)
    if layer.linear.num_inputs != affine.num_channels:
        raise Refused(f"{name_of(node)} has {layer.linear.num_inputs} inputs for {affine.num_channels} channels")
    if affine.shift.any() and not bias_shift_is_exact(layer):
        raise Refused(f"{name_of(node)} pads with zeros, which the BatchNorm's shift would not reach")
    return Layer(node, absorb_before(affine, layer.linear), layer.add)
