"""Merges a BatchNorm that stays with its neighbours: two affine maps in a row are one.

    BN∘BN         one of them takes both
    BN, Mul, Add  the BatchNorm takes the arithmetic by constants before and behind it (Caffe's BN + Scale)

The one that stays then has mean 0 and variance 1, so that γ and β alone carry the map, each rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_export.affine import Affine, Array
from model_export.fold.absorb.channels import along_channels
from model_export.fold.batchnorm import is_batchnorm, read_batchnorm
from model_export.fold.constants import Exact
from model_export.fold.edit import Edit
from model_export.fold.ledger import Refused
from model_export.fold.nodes import name_of
from model_export.fold.pointwise import batchnorm_affine, read_pointwise
from model_export.fold.scope import Scope
from model_export.ir import ir


@dataclass(frozen=True)
class Merge:
    """The edit, and the node that goes into the BatchNorm."""

    edit: Edit
    gone: ir.Node


def merge_with_neighbour(batchnorm: ir.Node, scope: Scope) -> Merge:
    """The edit by which the BatchNorm also does what one of its neighbours does.

    Raises:
        Refused: neither neighbour is an affine map along the same channels that only these two see.
    """
    reasons = []
    for merge in (_with_previous, _with_next):
        try:
            return merge(batchnorm, scope)
        except Refused as refused:
            reasons.append(str(refused))
    raise Refused("; ".join(reasons))


def _with_previous(batchnorm: ir.Node, scope: Scope) -> Merge:
    value = batchnorm.inputs[0]
    node = None if value is None else value.producer()
    if value is None or node is None or node.graph is not scope.graph:
        raise Refused("nothing comes before it")
    scope.refuse_other_readers(value)
    pointwise = read_pointwise(node, scope)
    both = pointwise.affine.then(batchnorm_affine(batchnorm, scope))
    edit = Edit(bypassed={node: pointwise.index}, constants=_parameters(batchnorm, both, scope))
    return Merge(edit, node)


def _with_next(batchnorm: ir.Node, scope: Scope) -> Merge:
    """A BatchNorm behind it is left to take this one."""
    readers = scope.readers(batchnorm.outputs[0])
    if len(readers) != 1 or is_batchnorm(readers[0][0]):
        raise Refused("no arithmetic by constants comes behind it")
    node, index = readers[0]
    pointwise = read_pointwise(node, scope)
    if pointwise.index != index:
        raise Refused(f"{name_of(node)} does not read it as its data")
    both = batchnorm_affine(batchnorm, scope).then(pointwise.affine)
    constants = _parameters(batchnorm, both, scope)
    edit = Edit(bypassed={node: index}, constants=constants, changed=(batchnorm.outputs[0],))
    return Merge(edit, node)


def _parameters(batchnorm: ir.Node, affine: Affine, scope: Scope) -> dict[tuple[ir.Node, int], Exact]:
    old = read_batchnorm(batchnorm, scope)
    channels = along_channels(affine, axis=1, num_channels=len(old.scale), node=batchnorm)
    ones = np.ones(len(old.scale))
    arrays = (channels.scale * np.sqrt(1 + old.eps), channels.shift, 0 * ones, ones)
    return {(batchnorm, k): _exact(batchnorm, k, array, scope) for k, array in enumerate(arrays, start=1)}


def _exact(batchnorm: ir.Node, index: int, array: Array, scope: Scope) -> Exact:
    dtype = scope.constants.read(batchnorm.inputs[index], "its parameter").dtype
    return Exact(lambda: array, array.shape, dtype)
