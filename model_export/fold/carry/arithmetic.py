"""Sums and products of two computed values.

    s·(a + b) + t = (s·a + t) + s·b        a sum hands the scale to all of its terms, and the shift to one
    s·(a · b)     = (s·a)·b                a product hands the scale to one factor, and refuses a shift

Where a term is shorter than the sum along an axis, it is repeated there: then the map must not vary along that axis.
"""

from __future__ import annotations

from model_export.affine import Affine
from model_export.fold.carry.activations import refuse_shift
from model_export.fold.ledger import Refused
from model_export.fold.nodes import int_of, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir


def fits(affine: Affine, value: ir.Value | None, scope: Scope) -> Affine:
    """The map on `value`, which numpy's rules repeat along axes that are shorter, or missing in front.

    Raises:
        Refused: it varies along an axis on which the value is not proved to be as long.
    """
    if value is None:
        raise Refused("an input is missing")
    lengths = scope.lengths(value)
    missing = affine.rank - len(lengths)
    for axis, length in enumerate(affine.shape):
        if length != 1 and (axis < missing or lengths[axis - missing] != length):
            raise Refused(f"{value.name} is not proved to have {length} channels")
    return affine.map(lambda values: values.reshape(values.shape[missing:]))


def _refuse_old_broadcast(node: ir.Node, scope: Scope) -> None:
    """Before opset 7 terms had one shape, unless `broadcast` said otherwise; then `axis` told where the second lies."""
    if scope.opset < 7 and int_of(node, "broadcast", 0):
        raise Refused(
            f"{name_of(node)} is of opset {scope.opset}, which broadcasts by other rules", by=(name_of(node),)
        )


def _sum_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:  # noqa: ARG001
    """The shift comes from the first term that takes it. In a difference the second term is turned around."""
    _refuse_old_broadcast(node, scope)
    signs = [1.0, -1.0] if node.op_type == "Sub" else [1.0] * len(node.inputs)
    takers = range(len(node.inputs)) if affine.has_shift else range(1)
    return [
        {k: _term(affine, sign, scope, node.inputs[k], shifted=k == taker) for k, sign in enumerate(signs)}
        for taker in takers
    ]


def _term(affine: Affine, sign: float, scope: Scope, value: ir.Value | None, *, shifted: bool) -> Affine:
    wanted = Affine(affine.scale, sign * affine.shift) if shifted else affine.without_shift
    if scope.constants.is_constant(value):
        return wanted  # a constant is written out as long as it must be
    return fits(wanted, value, scope)


def _product_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:  # noqa: ARG001
    _refuse_old_broadcast(node, scope)
    refuse_shift(node, affine)
    factors = range(1) if node.op_type == "Div" else range(2)
    alternatives, reasons = [], []
    for k in factors:
        try:
            alternatives.append({k: fits(affine, node.inputs[k], scope)})
        except Refused as refused:
            reasons.append(str(refused))
    if not alternatives:
        raise Refused(f"{node.op_type} ({name_of(node)}): {'; '.join(reasons)}", by=(name_of(node),))
    return alternatives


def _product_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:
    _refuse_old_broadcast(node, scope)
    refuse_shift(node, affine)
    if node.op_type == "Div" and index != 0:
        raise Refused(f"Div ({name_of(node)}) divides by it", by=(name_of(node),))
    rank = scope.rank(node.outputs[0])
    return {0: affine.map(lambda values: values.reshape((1,) * (rank - values.ndim) + values.shape))}


def _sum_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:  # noqa: ARG001
    raise Refused(
        f"{node.op_type} ({name_of(node)}) adds something else to it, which would be scaled too", by=(name_of(node),)
    )


SUMS = ("Add", "Sub", "Sum")
PRODUCTS = ("Mul", "Div")
FORWARD = {**dict.fromkeys(SUMS, _sum_forward), **dict.fromkeys(PRODUCTS, _product_forward)}
BACKWARD = {**dict.fromkeys(SUMS, _sum_backward), **dict.fromkeys(PRODUCTS, _product_backward)}
