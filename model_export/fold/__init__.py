"""Removes BatchNorms from an ONNX model by folding them into the weights next to them; needs no torch.

subjects     what is to be folded            pointwise, batchnorm   the affine map that it is
walk         from there to the layers        carry, layout          what the map is on the other side of a node
absorb       the layers take it              parallel, merge        beside a layer; into a neighbour
edit         what will change, as a value    prove, evaluate        checked in float64 before it is applied
engine       decides, one at a time          ledger                 the account, which must balance
"""

from __future__ import annotations

from dataclasses import dataclass

from model_export.errors import FoldInvalid, first_line
from model_export.fold.apply import Names
from model_export.fold.batchnorm import is_batchnorm
from model_export.fold.engine import Engine
from model_export.fold.ledger import Decision, Refusal, check_balance, ledger_entries
from model_export.fold.nodes import name_of
from model_export.fold.normalise import drop_overridable_inputs
from model_export.fold.provenance import forget_provenance
from model_export.fold.respell import respell
from model_export.fold.scope import scopes_of
from model_export.fold.selection import Selection
from model_export.fold.shapes import prove_shapes
from model_export.ir import ir
from service.bundle import FoldReport

ALL = Selection()


@dataclass(frozen=True)
class FoldedModel:
    """A model after folding, and the account of every BatchNorm that the model held before."""

    model: ir.Model
    report: FoldReport


def fold(model: ir.Model, selection: Selection = ALL) -> FoldedModel:
    """Fold all BatchNorms of `model` that can be folded exactly; `model` itself stays as it is.

    Raises:
        FoldInvalid: the model holds what can not be copied, such as sparse tensors, or a pattern names nothing.
        LedgerUnbalanced: the account does not add up.
    """
    before = batchnorm_names(model)
    folded = _copy(model)
    drop_overridable_inputs(folded)
    respell(folded)
    decisions = _fold_scopes(folded, selection)
    _refuse_idle_patterns(selection, decisions)
    if all(isinstance(decision, Refusal) for decision in decisions) and batchnorm_names(folded) == before:
        folded = _copy(model)  # nothing was folded: not even its form has changed
    else:
        forget_provenance(folded)
    check_balance(decisions, before, batchnorm_names(folded))
    return FoldedModel(folded, _report(decisions, model, folded))


def batchnorm_names(model: ir.Model) -> tuple[str, ...]:
    """The names of all BatchNormalization nodes of the model, wherever they are."""
    return tuple(name_of(node) for node in _all_nodes(model) if is_batchnorm(node))


def _fold_scopes(model: ir.Model, selection: Selection) -> tuple[Decision, ...]:
    names = Names(model)
    scopes = scopes_of(model, prove_shapes(model))
    return tuple(decision for scope in scopes for decision in Engine(scope, names, selection).run())


def _refuse_idle_patterns(selection: Selection, decisions: tuple[Decision, ...]) -> None:
    names = tuple(decision.subject.name for decision in decisions)
    idle = selection.patterns_without_match(names)
    if idle:
        known = ", ".join(names[:8]) or "none"
        raise FoldInvalid(f"no BatchNorm is called {' or '.join(idle)}; the model has {known}")


def _copy(model: ir.Model) -> ir.Model:
    """A copy that shares the weights. onnx-ir gives names to nodes that have none; here they stay without."""
    try:
        copy = model.clone()
    except RuntimeError as err:
        raise FoldInvalid(f"the model can not be copied, perhaps for a sparse tensor in it: {first_line(err)}") from err
    for node, twin in zip(_all_nodes(model), _all_nodes(copy), strict=True):
        twin.name = node.name
    return copy


def _all_nodes(model: ir.Model) -> list[ir.Node]:
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    return [node for graph in graphs for node in graph.all_nodes()]


def _report(decisions: tuple[Decision, ...], before: ir.Model, after: ir.Model) -> FoldReport:
    return FoldReport(
        entries=ledger_entries(decisions), num_nodes_before=_num_nodes(before), num_nodes_after=_num_nodes(after)
    )


def _num_nodes(model: ir.Model) -> int:
    """Nodes that compute: Constants do not."""
    return sum(node.op_type != "Constant" for node in model.graph.all_nodes())
