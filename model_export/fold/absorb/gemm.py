"""Gemm: y = α·A′B′ + β·C, where ′ may transpose; after the fold α and β have become part of weight and bias."""

from __future__ import annotations

import numpy as np

from model_export import affine as algebra
from model_export.affine import Affine, Array, Linear
from model_export.fold.absorb.channels import along_channels, refuse_reading_elsewhere
from model_export.fold.constants import Exact
from model_export.fold.edit import Edit
from model_export.fold.ledger import Refused
from model_export.fold.nodes import float_of, input_of, int_of, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir


def absorb_behind(node: ir.Node, affine: Affine, scope: Scope) -> Edit:
    """Fold a map on the output, whose channels are axis 1."""
    weight, bias = _read(node, scope)
    channels = along_channels(affine, axis=1, num_channels=len(bias), node=node)
    return _edit(node, weight, lambda linear: algebra.absorb_behind(linear, channels), bias)


def absorb_before(node: ir.Node, index: int, affine: Affine, scope: Scope) -> Edit:
    """Fold a map on the input, whose channels are axis 1, or axis 0 where the Gemm transposes it."""
    refuse_reading_elsewhere(node, index)
    weight, bias = _read(node, scope)
    axis = 0 if int_of(node, "transA", 0) else 1
    num_inputs = weight.shape[1 if int_of(node, "transB", 0) else 0]
    channels = along_channels(affine, axis=axis, num_channels=num_inputs, node=node)
    return _edit(node, weight, lambda linear: algebra.absorb_before(channels, linear), bias)


def _read(node: ir.Node, scope: Scope) -> tuple[Exact, Array]:
    """The weight as it lies in the graph, and β·C as one value for each output."""
    if scope.opset < 7:
        raise Refused(f"{name_of(node)} is a Gemm of opset {scope.opset}, whose bias broadcasts by other rules")
    weight = scope.constants.read(input_of(node, 1), f"the weight of {name_of(node)}")
    if len(weight.shape) != 2:
        raise Refused(f"the weight of {name_of(node)} has {len(weight.shape)} axes, expected 2")
    num_outputs = weight.shape[0 if int_of(node, "transB", 0) else 1]
    return weight, float_of(node, "beta", 1.0) * read_bias(node, num_outputs, scope)


def read_bias(node: ir.Node, num_outputs: int, scope: Scope) -> Array:
    """The bias (input 2) as one value for each output; zeros where there is none."""
    if input_of(node, 2) is None:
        return np.zeros(num_outputs)
    bias = scope.constants.array(input_of(node, 2), f"the bias of {name_of(node)}")
    if bias.size not in {1, num_outputs} or bias.shape[:-1] not in {(), (1,)}:
        raise Refused(
            f"the bias of {name_of(node)} has shape {bias.shape}: not one value for each of {num_outputs} outputs"
        )
    return np.broadcast_to(bias.reshape(-1), (num_outputs,))


def edit_gemm(node: ir.Node, scope: Scope, fold: algebra.Fold) -> Edit:
    """The edit by which the Gemm computes what `fold` makes of its map.

    Raises:
        Refused: its weight or bias is not constant, or of a form that leaves the algebra; or `fold` refuses.
    """
    weight, bias = _read(node, scope)
    return _edit(node, weight, fold, bias)


def _edit(node: ir.Node, weight: Exact, fold: algebra.Fold, bias: Array) -> Edit:
    alpha, transposed = float_of(node, "alpha", 1.0), bool(int_of(node, "transB", 0))

    def rows(values: Array) -> Array:
        return values if transposed else values.T

    def folded() -> Linear:
        return fold(Linear(alpha * rows(weight.compute()), bias))

    new_bias = folded().bias
    constants = {(node, 1): Exact(lambda: rows(folded().weight), weight.shape, weight.dtype)}
    if input_of(node, 2) is not None or new_bias.any():
        constants[node, 2] = Exact(lambda: new_bias, new_bias.shape, weight.dtype)
    return Edit(constants=constants, dropped={node: ("alpha", "beta")}, layers=(node,))
