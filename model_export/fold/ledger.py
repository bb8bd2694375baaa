"""The account of a fold: every BatchNorm of the raw graph ends as a `Fold` or as a `Refusal`, and the sums must agree.

Other tools say nothing about what they leave behind; here a BatchNorm that is in neither list is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model_export.errors import LedgerUnbalanced
from service.bundle import LedgerEntry

Direction = Literal["previous", "next"]


@dataclass(frozen=True)
class Fold:
    """This BatchNorm goes into these layers: `previous`, the one whose output it scales, or `next`, all that read it.

    `path` names the nodes between the BatchNorm and the layers, in the order of the data.
    """

    batchnorm: str
    into: tuple[str, ...]
    direction: Direction
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """This BatchNorm stays, for this reason."""

    batchnorm: str
    reason: str


class Refused(Exception):
    """A rule does not allow a fold; the message is the reason. It never leaves this package."""


def ledger_entries(decisions: tuple[Fold | Refusal, ...]) -> tuple[LedgerEntry, ...]:
    """The decisions in the words of the bundle's manifest."""
    return tuple(_entry(decision) for decision in decisions)


def check_balance(decisions: tuple[Fold | Refusal, ...], before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """Compare the decisions with the BatchNorms that the graph held before and holds after.

    Raises:
        LedgerUnbalanced: a BatchNorm has no decision or several, or what is left is not what was refused.
    """
    decided = sorted(decision.batchnorm for decision in decisions)
    kept = sorted(decision.batchnorm for decision in decisions if isinstance(decision, Refusal))
    if decided != sorted(before) or kept != sorted(after):
        raise LedgerUnbalanced(
            f"the fold's account does not add up: {len(before)} BatchNorms before ({', '.join(before)}), decided "
            f"for {', '.join(decided) or 'none'}, kept {', '.join(kept) or 'none'}, but the result holds "
            f"{', '.join(after) or 'none'}; nothing was written, please report this"
        )


def _entry(decision: Fold | Refusal) -> LedgerEntry:
    if isinstance(decision, Refusal):
        return LedgerEntry(batchnorm=decision.batchnorm, outcome="kept", reason=decision.reason)
    return LedgerEntry(
        batchnorm=decision.batchnorm,
        outcome="folded",
        into=decision.into,
        direction=decision.direction,
        path=decision.path,
    )
