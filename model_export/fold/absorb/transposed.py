"""ConvTranspose: its weight lies as (inputs, outputs // groups, *kernel); a map on the output always fits.

A shift on the input does not: how many taps reach an output differs from place to place.
"""

from __future__ import annotations

from model_export.affine import Affine, Array
from model_export.fold.absorb.channels import along_channels, refuse_reading_elsewhere
from model_export.fold.absorb.convolution import edit_convolution
from model_export.fold.absorb.gemm import read_bias
from model_export.fold.constants import Exact
from model_export.fold.edit import Edit
from model_export.fold.ledger import Refused
from model_export.fold.nodes import input_of, int_of, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir


def absorb_behind(node: ir.Node, affine: Affine, scope: Scope) -> Edit:
    """Fold a map on the output, whose channels are axis 1."""
    weight, groups = _read_weight(node, scope)
    num_outputs = weight.shape[1] * groups
    channels = along_channels(affine, axis=1, num_channels=num_outputs, node=node)

    def scaled() -> Array:
        values = weight.compute()
        by_group = values.reshape(groups, -1, *values.shape[1:])
        scale = channels.scale.reshape(groups, 1, -1, *(1,) * (values.ndim - 2))
        return (by_group * scale).reshape(values.shape)

    bias = read_bias(node, num_outputs, scope) * channels.scale + channels.shift
    return edit_convolution(node, Exact(scaled, weight.shape, weight.dtype), bias)


def absorb_before(node: ir.Node, index: int, affine: Affine, scope: Scope) -> Edit:
    """Fold a scale on the input, whose channels are axis 1."""
    refuse_reading_elsewhere(node, index)
    weight, groups = _read_weight(node, scope)
    channels = along_channels(affine, axis=1, num_channels=weight.shape[0], node=node)
    if channels.has_shift:
        raise Refused(
            f"{name_of(node)} is a ConvTranspose: the shift would reach its outputs unevenly", by=(name_of(node),)
        )

    def scaled() -> Array:
        values = weight.compute()
        return values * channels.scale.reshape(-1, *(1,) * (values.ndim - 1))

    bias = read_bias(node, weight.shape[1] * groups, scope)
    return edit_convolution(node, Exact(scaled, weight.shape, weight.dtype), bias)


def _read_weight(node: ir.Node, scope: Scope) -> tuple[Exact, int]:
    weight = scope.constants.read(input_of(node, 1), f"the weight of {name_of(node)}")
    groups = int_of(node, "group", 1)
    if len(weight.shape) < 3 or weight.shape[0] % groups:
        raise Refused(f"{name_of(node)} is a ConvTranspose with {groups} groups and a weight of {weight.shape}")
    return weight, groups
