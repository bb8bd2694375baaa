"""Walks from a BatchNorm to the layers that take it, in both directions, and gathers what will have to change.

Backward, the value must come from linear operators, and nobody else may read it on the way. Forward, every reader must
take the map. In between it is carried through nodes (`carry`), and nodes that are affine maps themselves go with it.
A walk is cut off after a number of steps, so that the work for one BatchNorm does not grow with the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_export.affine import Affine
from model_export.fold.absorb import absorb_before, absorb_behind, matmul, takes_before, takes_behind
from model_export.fold.carry import carry_backward, carry_forward
from model_export.fold.constants import Exact
from model_export.fold.edit import Edit
from model_export.fold.ledger import Refused
from model_export.fold.nodes import name_of
from model_export.fold.pointwise import read_pointwise
from model_export.fold.scope import Scope
from model_export.ir import ir

MAX_STEPS = 150


@dataclass
class Walk:
    """One walk through a scope, and how many steps it may still take."""

    scope: Scope
    steps_left: int = MAX_STEPS

    def step(self, value: ir.Value) -> None:
        """Count a step. Raises Refused where there were too many."""
        self.steps_left -= 1
        if self.steps_left < 0:
            raise Refused(f"the chain of nodes at {value.name} is too long to follow")


# --- backward --------------------------------------------------------------------------------------------------------


def absorb_in_previous(value: ir.Value, affine: Affine, walk: Walk) -> Edit:
    """The edit by which `value` holds `affine` of what it holds now.

    Raises:
        Refused: with the reason.
    """
    walk.step(value)
    if affine.is_identity:
        return Edit()
    walk.scope.refuse_other_readers(value)
    node = value.producer()
    if node is None or node.graph is not walk.scope.graph:
        raise Refused(f"no layer comes before it: {value.name} is an input of the graph")
    edit = _layer_behind(node, affine, walk.scope) or _through(node, value, affine, walk)
    return Edit(changed=(value,)).also(edit)


def _layer_behind(node: ir.Node, affine: Affine, scope: Scope) -> Edit | None:
    if takes_behind(node):
        return absorb_behind(node, affine, scope)
    product = matmul.product_of(node, scope)
    if product is None:
        return None
    return absorb_behind(product, affine, scope).also(Edit(path=(node,)))


def _through(node: ir.Node, value: ir.Value, affine: Affine, walk: Walk) -> Edit:
    """Past a node that is no layer: it goes with the map if it is affine itself, or hands the map on."""
    try:
        pointwise = read_pointwise(node, walk.scope)
    except Refused:
        return _carried_backward(node, value, affine, walk)
    source = node.inputs[pointwise.index]
    try:
        edit = absorb_in_previous(source, pointwise.affine.then(affine), walk)  # type: ignore[arg-type]
    except Refused as refused:
        return _carried_instead(node, value, affine, walk, refused)
    return Edit(bypassed={node: pointwise.index}, path=(node,)).also(edit)


def _carried_instead(node: ir.Node, value: ir.Value, affine: Affine, walk: Walk, first: Refused) -> Edit:
    """A sum with a constant can take the shift itself, and hand on a scale that more nodes let through."""
    try:
        return _carried_backward(node, value, affine, walk)
    except Refused:
        raise first from None


def _carried_backward(node: ir.Node, value: ir.Value, affine: Affine, walk: Walk) -> Edit:
    """The first alternative in which all inputs can be changed."""
    refusals = []
    for wanted in carry_backward(node, node.outputs.index(value), affine, walk.scope):
        try:
            edit = Edit(path=(node,))
            for index, part in wanted.items():
                edit = edit.also(absorb_in_input(node, index, part, walk))
        except Refused as refused:
            refusals.append(refused)
        else:
            return edit
    raise refusals[0]


def absorb_in_input(node: ir.Node, index: int, affine: Affine, walk: Walk) -> Edit:
    """The edit by which input `index` of `node` holds `affine` of what it holds now; a constant is written anew.

    Raises:
        Refused: with the reason.
    """
    value = node.inputs[index]
    if value is None:
        raise Refused(f"{name_of(node)} has no input {index}")
    if not walk.scope.constants.is_constant(value):
        return absorb_in_previous(value, affine, walk)
    if affine.is_identity:
        return Edit()
    old = walk.scope.constants.read(value, f"what {name_of(node)} takes")
    laid = (1,) * (affine.rank - len(old.shape)) + old.shape
    shape = np.broadcast_shapes(laid, affine.shape)
    mapped = Exact(lambda: old.compute().reshape(laid) * affine.scale + affine.shift, shape, old.dtype)
    return Edit(constants={(node, index): mapped})


# --- forward ---------------------------------------------------------------------------------------------------------


def absorb_in_next(value: ir.Value, affine: Affine, walk: Walk) -> Edit:
    """The edit by which the readers of `value` do what they do now when it holds x instead of `affine` of x.

    Raises:
        Refused: with the reason.
    """
    readers = walk.scope.readers(value)
    if not readers:
        raise Refused(f"nothing reads {value.name}")
    edit = Edit()
    for node, index in readers:
        walk.step(value)
        edit = edit.also(_reader(node, index, affine, walk))
    return edit


def _reader(node: ir.Node, index: int, affine: Affine, walk: Walk) -> Edit:
    if affine.is_identity:
        return Edit()
    if takes_before(node):
        return absorb_before(node, index, affine, walk.scope)
    try:
        pointwise = read_pointwise(node, walk.scope)
    except Refused:
        return _carried_forward(node, index, affine, walk)
    if pointwise.index != index:
        raise Refused(f"{name_of(node)} does not read it as its data", by=(name_of(node),))
    edit = absorb_in_next(node.outputs[0], affine.then(pointwise.affine), walk)
    return Edit(bypassed={node: index}, changed=(node.outputs[0],), path=(node,)).also(edit)


def _carried_forward(node: ir.Node, index: int, affine: Affine, walk: Walk) -> Edit:
    edit = Edit(path=(node,))
    for output, part in carry_forward(node, index, affine, walk.scope).items():
        value = node.outputs[output]
        edit = edit.also(Edit(changed=(value,))).also(absorb_in_next(value, part, walk))
    return edit
