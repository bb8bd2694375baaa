"""Averages and maxima over space.

average     linear: keeps the scale, and the shift too wherever no padded zero is counted
maximum     keeps a scale that is not negative, and any shift, for what is padded never wins
sum         keeps the scale
"""

from __future__ import annotations

import numpy as np

from model_export.affine import Affine
from model_export.fold.carry.activations import refuse_negative_scale, refuse_other_outputs, refuse_shift
from model_export.fold.ledger import Refused
from model_export.fold.nodes import input_of, int_of, ints_of, is_padded, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir

LINEAR = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum")
MAXIMA = ("MaxPool", "GlobalMaxPool", "ReduceMax")
MINIMA = ("ReduceMin",)
REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")


def _check(node: ir.Node, affine: Affine) -> None:
    if node.op_type in {*MAXIMA, *MINIMA}:
        refuse_other_outputs(node)
        refuse_negative_scale(node, affine)
    if node.op_type == "ReduceSum":
        refuse_shift(node, affine)
    if node.op_type == "AveragePool" and affine.has_shift and not _counts_real_values_only(node):
        raise Refused(
            f"AveragePool ({name_of(node)}) counts padded zeros, which the shift would not reach", by=(name_of(node),)
        )


def _counts_real_values_only(node: ir.Node) -> bool:
    if not int_of(node, "count_include_pad", 0):
        return True
    return not is_padded(node) and not int_of(node, "ceil_mode", 0)


def _refuse_variation(node: ir.Node, affine: Affine, axes: tuple[int, ...]) -> None:
    if any(affine.varies_along(axis) for axis in axes):
        raise Refused(f"{node.op_type} ({name_of(node)}) pools over the channels", by=(name_of(node),))


def _reduced_axes(node: ir.Node, rank: int, scope: Scope) -> tuple[int, ...]:
    """The axes of the input that go, or become 1."""
    if node.op_type not in REDUCTIONS:
        return tuple(range(2, rank))
    given = ints_of(node, "axes")
    if given is None and input_of(node, 1) is not None:
        given = scope.constants.ints(node.inputs[1], f"the axes of {name_of(node)}")
    if not given:
        return () if int_of(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(axis % rank for axis in given)


def _keeps_axes(node: ir.Node) -> bool:
    return node.op_type not in REDUCTIONS or bool(int_of(node, "keepdims", 1))


def _forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:
    if index != 0:
        raise Refused(f"{node.op_type} ({name_of(node)}) does not read it as its data", by=(name_of(node),))
    axes = _reduced_axes(node, affine.rank, scope)
    _refuse_variation(node, affine, axes)
    _check(node, affine)
    return {0: affine if _keeps_axes(node) else affine.map(lambda values: np.squeeze(values, axis=axes))}


def _backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:
    if index != 0 or node.inputs[0] is None:
        raise Refused(f"{node.op_type} ({name_of(node)}) has a second output that is read", by=(name_of(node),))
    axes = _reduced_axes(node, scope.rank(node.inputs[0]), scope)
    before = affine if _keeps_axes(node) else affine.map(lambda values: np.expand_dims(values, axis=axes))
    _refuse_variation(node, before, axes)
    _check(node, before)
    return [{0: before}]


OPERATORS = (*LINEAR, *MAXIMA, *MINIMA)
FORWARD = dict.fromkeys(OPERATORS, _forward)
BACKWARD = dict.fromkeys(OPERATORS, _backward)
