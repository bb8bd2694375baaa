"""Conv, in any number of spatial axes, with groups: exact on its output, and on its input where it pads nothing.

A padded zero is not shifted, so that with padding only a map without a shift goes into the weights. To fold the scale
alone and leave the shift as an Add would gain nothing: the two cost the same (`python -m benchmarks.padding`).
"""

from __future__ import annotations

import numpy as np

from model_export import affine as algebra
from model_export.affine import Affine, Array, Linear
from model_export.fold.absorb.channels import along_channels, refuse_reading_elsewhere
from model_export.fold.absorb.gemm import read_bias
from model_export.fold.constants import Exact
from model_export.fold.edit import Edit
from model_export.fold.ledger import Refused
from model_export.fold.nodes import input_of, int_of, is_padded, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir


def absorb_behind(node: ir.Node, affine: Affine, scope: Scope) -> Edit:
    """Fold a map on the output, whose channels are axis 1."""
    weight = read_weight(node, scope)
    channels = along_channels(affine, axis=1, num_channels=weight.shape[0], node=node)
    bias = read_bias(node, weight.shape[0], scope)
    groups = int_of(node, "group", 1)

    def scaled() -> Array:
        return algebra.absorb_behind(Linear(weight.compute(), bias, groups), channels).weight

    folded = algebra.absorb_behind(Linear(np.empty((len(bias), 0)), bias), channels).bias  # it needs no weight
    return edit_convolution(node, Exact(scaled, weight.shape, weight.dtype), folded)


def absorb_before(node: ir.Node, index: int, affine: Affine, scope: Scope) -> Edit:
    """Fold a map on the input, whose channels are axis 1."""
    refuse_reading_elsewhere(node, index)
    weight = read_weight(node, scope)
    num_inputs = weight.shape[1] * int_of(node, "group", 1)
    channels = along_channels(affine, axis=1, num_channels=num_inputs, node=node)
    if channels.has_shift and is_padded(node):
        raise Refused(
            f"{name_of(node)} pads with zeros, which the BatchNorm's shift would not reach", by=(name_of(node),)
        )
    bias, groups = read_bias(node, weight.shape[0], scope), int_of(node, "group", 1)

    def folded() -> Linear:
        return algebra.absorb_before(channels, Linear(weight.compute(), bias, groups))

    return edit_convolution(node, Exact(lambda: folded().weight, weight.shape, weight.dtype), folded().bias)


def read_weight(node: ir.Node, scope: Scope) -> Exact:
    """The weight, of shape (outputs, inputs // groups, *kernel).

    Raises:
        Refused: it is not constant, or does not fit the groups.
    """
    weight = scope.constants.read(input_of(node, 1), f"the weight of {name_of(node)}")
    groups = int_of(node, "group", 1)
    if len(weight.shape) < 3 or weight.shape[0] % groups:
        raise Refused(f"{name_of(node)} is a Conv with {groups} groups and a weight of shape {weight.shape}")
    return weight


def edit_convolution(node: ir.Node, weight: Exact, bias: Array) -> Edit:
    """The edit that gives the Conv this weight and bias."""
    constants = {(node, 1): weight}
    if input_of(node, 2) is not None or bias.any():
        constants[node, 2] = Exact(lambda: bias, bias.shape, weight.dtype)
    return Edit(constants=constants, layers=(node,))
