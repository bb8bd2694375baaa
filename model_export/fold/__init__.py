"""Removes BatchNorms from an ONNX model by folding them into the weights next to them; needs no torch.

Decide, then do: `plan_folds` says for each BatchNorm into which layer it goes, or why it stays; `apply_plan` does
just that; the account of both must balance.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from model_export.errors import FoldInvalid, first_line
from model_export.fold.apply import apply_plan
from model_export.fold.ledger import Fold, Refusal, check_balance, ledger_entries
from model_export.fold.plan import batchnorm_names, plan_folds
from model_export.fold.shapes import proved_shapes
from service.bundle import FoldReport


@dataclass(frozen=True)
class FoldedModel:
    """A model after folding, and the account of every BatchNorm that the model held before."""

    model: ir.Model
    report: FoldReport


def fold(model: ir.Model) -> FoldedModel:
    """Fold all BatchNorms of `model` that can be folded exactly; `model` itself stays as it is.

    Raises:
        FoldInvalid: the model holds what can not be copied, such as sparse tensors.
        LedgerUnbalanced: the account does not add up.
    """
    folded = _copy(model)
    before = batchnorm_names(folded)
    with proved_shapes(folded):
        plan = plan_folds(folded)
    apply_plan(folded, plan)
    check_balance(plan.decisions, before, batchnorm_names(folded))
    return FoldedModel(folded, _report(plan.decisions, model, folded))


def _copy(model: ir.Model) -> ir.Model:
    try:
        return model.clone()
    except RuntimeError as err:
        raise FoldInvalid(f"the model can not be copied, perhaps for a sparse tensor in it: {first_line(err)}") from err


def _report(decisions: tuple[Fold | Refusal, ...], before: ir.Model, after: ir.Model) -> FoldReport:
    return FoldReport(
        entries=ledger_entries(decisions), num_nodes_before=_num_nodes(before), num_nodes_after=_num_nodes(after)
    )


def _num_nodes(model: ir.Model) -> int:
    """Nodes that compute: Constants do not."""
    return sum(node.op_type != "Constant" for node in model.graph.all_nodes())
