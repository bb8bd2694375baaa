"""Decides, for every BatchNorm of a graph, where it goes or why it stays. Nothing is changed here."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from model_export.affine import Affine
from model_export.fold.backward import absorb_into_previous
from model_export.fold.batchnorm import is_batchnorm, read_batchnorm
from model_export.fold.draft import Draft
from model_export.fold.forward import absorb_into_next
from model_export.fold.layers import Layer
from model_export.fold.ledger import Direction, Fold, Refusal, Refused
from model_export.fold.values import name_of

RULES = {"previous": absorb_into_previous, "next": absorb_into_next}
DIRECTIONS: tuple[Direction, ...] = ("previous", "next")


@dataclass(frozen=True)
class FoldPlan:
    """The decisions, in the order of the data; the nodes that go; and the layers as they will be, in float64."""

    decisions: tuple[Fold | Refusal, ...]
    gone: tuple[ir.Node, ...]
    layers: tuple[Layer, ...]


def plan_folds(model: ir.Model) -> FoldPlan:
    """Plan the fold of every BatchNorm of the model, also of those in bodies and functions, which stay."""
    draft = Draft(model.graph, opset=model.opset_imports.get("", 0))
    decisions = _decide_all([node for node in model.graph if is_batchnorm(node)], draft)
    nested = [Refusal(name, "it is in the body of a control-flow node or function") for name in _nested_names(model)]
    return FoldPlan((*decisions, *nested), tuple(draft.gone), tuple(draft.layers.values()))


def batchnorm_names(model: ir.Model) -> tuple[str, ...]:
    """The names of all BatchNorms of the model, wherever they are."""
    return (*(name_of(node) for node in model.graph if is_batchnorm(node)), *_nested_names(model))


def _nested_names(model: ir.Model) -> tuple[str, ...]:
    top = set(model.graph)
    in_bodies = [node for node in model.graph.all_nodes() if node not in top]
    in_functions = [node for function in model.functions.values() for node in function.all_nodes()]
    return tuple(name_of(node) for node in (*in_bodies, *in_functions) if is_batchnorm(node))


def _decide_all(batchnorms: list[ir.Node], draft: Draft) -> list[Fold | Refusal]:
    """Decide front to back, then ask those that were refused again, back to front, for as long as one more goes.

    A BatchNorm behind another hides the layer that could take both, until it is gone itself.
    """
    decisions = {node: _decide(node, draft) for node in batchnorms}
    num_gone = -1
    while num_gone != len(draft.gone):
        num_gone = len(draft.gone)
        refused = [node for node, decision in decisions.items() if isinstance(decision, Refusal)]
        decisions |= {node: _decide(node, draft) for node in reversed(refused)}
    return list(decisions.values())


def _decide(batchnorm: ir.Node, draft: Draft) -> Fold | Refusal:
    name = name_of(batchnorm)
    try:
        affine = read_batchnorm(batchnorm, draft.opset)
    except Refused as refused:
        return Refusal(name, str(refused))
    return _first_that_absorbs(name, batchnorm, affine, draft)


def _first_that_absorbs(name: str, batchnorm: ir.Node, affine: Affine, draft: Draft) -> Fold | Refusal:
    reasons = []
    for direction in DIRECTIONS:
        try:
            layers, path = RULES[direction](batchnorm, affine, draft)
            draft.accept(batchnorm, layers)
        except Refused as refused:
            reasons.append(f"{direction}: {refused}")
        except RecursionError:
            reasons.append(f"{direction}: the chain of nodes that change nothing is too long to follow")
        else:
            return Fold(name, tuple(layer.name for layer in layers), direction, path)
    return Refusal(name, "; ".join(reasons))
