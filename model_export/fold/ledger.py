"""The account of a fold: every BatchNorm of the raw graph ends as a `Fold` or as a `Refusal`, and the sums must agree.

Other tools say nothing about what they leave behind; here a BatchNorm that is in neither list is an error.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from model_export.errors import LedgerUnbalanced
from service.bundle import LedgerEntry

Direction = Literal["previous", "next", "parallel"]
Form = Literal["BatchNormalization", "decomposed"]


@dataclass(frozen=True)
class Subject:
    """A BatchNorm as the ledger knows it: its name, and how the graph spells it.

    `decomposed` is a scale and a shift for each channel, in nodes of their own (Sub, Mul, Div, Add), as frozen
    BatchNorms are written by some frameworks; it has the name of the first of them.
    """

    name: str
    form: Form = "BatchNormalization"


@dataclass(frozen=True)
class Fold:
    """This BatchNorm goes into these layers along `axis` of its own input, and `path` lies in between.

    `previous` is what makes the value that it normalises, `next` all that read its result, `parallel` a layer that
    reads the same value and is added to it. `merged`: what took it is itself no layer but a BatchNorm.
    `error` is what the check of this one fold measured, relative to the largest value, in float64.
    """

    subject: Subject
    into: tuple[str, ...]
    direction: Direction
    path: tuple[str, ...] = ()
    axis: int = 1
    merged: bool = False
    error: float | None = None


@dataclass(frozen=True)
class Refusal:
    """This BatchNorm stays, for this reason; `blocked_by` names the nodes that stand in the way."""

    subject: Subject
    reason: str
    blocked_by: tuple[str, ...] = ()


class Refused(Exception):
    """A rule does not allow a fold: why, and which nodes are to blame. It never leaves this package."""

    def __init__(self, reason: str, *, by: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.by = by


Decision = Fold | Refusal


def ledger_entries(decisions: tuple[Decision, ...]) -> tuple[LedgerEntry, ...]:
    """The decisions in the words of the bundle's manifest."""
    return tuple(_entry(decision) for decision in decisions)


def check_balance(decisions: tuple[Decision, ...], before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """Compare the decisions with the BatchNormalization nodes that the model held before and holds after.

    Raises:
        LedgerUnbalanced: a BatchNorm has no decision or several, or what is left is not what was refused.
    """
    ours = [decision for decision in decisions if decision.subject.form == "BatchNormalization"]
    decided = Counter(decision.subject.name for decision in ours)
    kept = Counter(decision.subject.name for decision in ours if isinstance(decision, Refusal))
    if decided != Counter(before) or kept != Counter(after):
        raise LedgerUnbalanced(
            f"the fold's account does not add up: {len(before)} BatchNorms before ({', '.join(before)}), decided "
            f"for {', '.join(decided) or 'none'}, kept {', '.join(kept) or 'none'}, but the result holds "
            f"{', '.join(after) or 'none'}; nothing was written, please report this"
        )


def _entry(decision: Decision) -> LedgerEntry:
    if isinstance(decision, Refusal):
        return LedgerEntry(
            batchnorm=decision.subject.name,
            form=decision.subject.form,
            outcome="kept",
            reason=decision.reason,
            blocked_by=decision.blocked_by,
        )
    return LedgerEntry(
        batchnorm=decision.subject.name,
        form=decision.subject.form,
        outcome="merged" if decision.merged else "folded",
        into=decision.into,
        direction=decision.direction,
        axis=decision.axis,
        path=decision.path,
        error=decision.error,
    )
