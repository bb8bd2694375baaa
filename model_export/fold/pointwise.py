"""Nodes that are an affine map of one of their inputs: BatchNormalization, and Mul, Add, Sub, Div by a constant, Neg.

Where one of them stands in the way of a fold it becomes part of what is folded, and goes with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model_export.affine import Affine, Array
from model_export.fold.batchnorm import is_batchnorm, read_batchnorm
from model_export.fold.ledger import Refused
from model_export.fold.nodes import is_op, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir

SCALING = ("Mul", "Div")
SHIFTING = ("Add", "Sub")


@dataclass(frozen=True)
class Pointwise:
    """`node` computes `affine` of its input at `index`."""

    node: ir.Node
    index: int
    affine: Affine


def read_pointwise(node: ir.Node, scope: Scope) -> Pointwise:
    """The affine map that a node is.

    Raises:
        Refused: it is none, or the map is not the same at every run.
    """
    if node in scope.reserved:
        raise Refused(f"{name_of(node)}: {scope.reserved[node]}", by=(name_of(node),))
    if is_batchnorm(node):
        return Pointwise(node, 0, batchnorm_affine(node, scope))
    if is_op(node, "Neg"):
        ones = np.ones((1,) * scope.rank(_input(node, 0)))
        return Pointwise(node, 0, Affine(-ones, 0 * ones))
    if is_op(node, *SCALING, *SHIFTING):
        return _read_arithmetic(node, scope)
    raise Refused(f"{node.op_type} ({name_of(node)}) is no affine map", by=(name_of(node),))


def batchnorm_affine(node: ir.Node, scope: Scope) -> Affine:
    """The map of a BatchNormalization, laid along axis 1 of its input. Raises Refused as `read_batchnorm` does."""
    affine = read_batchnorm(node, scope).affine
    rank = scope.rank(_input(node, 0))
    if rank < 2:
        raise Refused(f"its input has {rank} axes and no channels")
    return affine.on_axis(1, rank)


def _read_arithmetic(node: ir.Node, scope: Scope) -> Pointwise:
    if scope.opset < 7:
        raise Refused(f"{name_of(node)} is of opset {scope.opset}, which broadcasts by other rules")
    index = _variable_input(node, scope)
    other = scope.constants.array(node.inputs[1 - index], f"what {name_of(node)} takes")
    return Pointwise(node, index, ARITHMETIC[node.op_type](_laid_out(other, node, index, scope), index))


def _variable_input(node: ir.Node, scope: Scope) -> int:
    """Which input is no constant."""
    constant = [scope.constants.is_constant(value) for value in node.inputs]
    if constant == [True, False] and node.op_type != "Div":
        return 1
    if constant == [False, True]:
        return 0
    raise Refused(f"{node.op_type} ({name_of(node)}) does not take one constant", by=(name_of(node),))


def _laid_out(other: Array, node: ir.Node, index: int, scope: Scope) -> Array:
    """The constant with as many axes as the input; it must not make the input longer along any of them."""
    value = _input(node, index)
    lengths = scope.lengths(value)
    if other.ndim > len(lengths):
        raise Refused(f"what {name_of(node)} takes has more axes than {value.name}", by=(name_of(node),))
    laid = other.reshape((1,) * (len(lengths) - other.ndim) + other.shape)
    for wanted, length in zip(laid.shape, lengths, strict=True):
        if wanted not in {1, length}:
            raise Refused(f"{name_of(node)} may make {value.name} longer: not proved otherwise", by=(name_of(node),))
    if not np.isfinite(laid).all():
        raise Refused(f"what {name_of(node)} takes is not all finite", by=(name_of(node),))
    return laid


def _divided(values: Array, index: int) -> Affine:
    if index != 0 or (values == 0).any():
        raise Refused("it divides by zero")
    return Affine(1 / values, _zero(values))


def _zero(values: Array) -> Array:
    return np.zeros((1,) * values.ndim)


def _one(values: Array) -> Array:
    return np.ones((1,) * values.ndim)


ARITHMETIC: dict[str, Callable[[Array, int], Affine]] = {
    "Mul": lambda values, _: Affine(values, _zero(values)),
    "Div": _divided,
    "Add": lambda values, _: Affine(_one(values), values),
    "Sub": lambda values, index: Affine(_one(values), -values) if index == 0 else Affine(-_one(values), values),
}


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None:
        raise Refused(f"{name_of(node)} has no input")
    return value
