"""Carries an affine map through a node: what it is on the other side, in the direction of the data and against it.

A rule exists for an operator only where carrying is exact; each checks what it relies on and refuses the rest.

    forward     the map stands on input `index`; on which outputs does it stand instead, and as what?
    backward    the map is wanted on output `index`; what must stand on the inputs? Where there is a choice, as in a
                sum, whose shift can come from any of its terms, the rule gives the alternatives in order.
"""

from __future__ import annotations

from collections.abc import Callable

from model_export.affine import Affine
from model_export.fold.carry import activations, arithmetic, joining, pooling, rearranging
from model_export.fold.ledger import Refused
from model_export.fold.nodes import is_op, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir

Forward = Callable[[ir.Node, int, Affine, Scope], dict[int, Affine]]
Backward = Callable[[ir.Node, int, Affine, Scope], list[dict[int, Affine]]]

FORWARD: dict[str, Forward] = {
    **activations.FORWARD,
    **arithmetic.FORWARD,
    **joining.FORWARD,
    **pooling.FORWARD,
    **rearranging.FORWARD,
}
BACKWARD: dict[str, Backward] = {
    **activations.BACKWARD,
    **arithmetic.BACKWARD,
    **joining.BACKWARD,
    **pooling.BACKWARD,
    **rearranging.BACKWARD,
}


def carry_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:
    """The maps on the outputs of `node` that are the same as `affine` on its input `index`.

    Raises:
        Refused: there are none, or it is not proved.
    """
    if not is_op(node, *FORWARD):
        raise Refused(f"{node.op_type} ({name_of(node)}) does not absorb a scale and a shift", by=(name_of(node),))
    return FORWARD[node.op_type](node, index, affine, scope)


def carry_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:
    """The maps on the inputs of `node` that are the same as `affine` on its output `index`: the alternatives.

    Raises:
        Refused: there are none, or it is not proved.
    """
    if not is_op(node, *BACKWARD):
        raise Refused(f"{node.op_type} ({name_of(node)}) does not absorb a scale and a shift", by=(name_of(node),))
    return BACKWARD[node.op_type](node, index, affine, scope)
