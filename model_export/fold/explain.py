"""The story of one BatchNorm: what it is, where it stands, its most dangerous channel, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_export.errors import FoldInvalid
from model_export.fold.batchnorm import read_batchnorm
from model_export.fold.ledger import Refused
from model_export.fold.nodes import name_of
from model_export.fold.scope import Scope, scopes_of
from model_export.fold.shapes import prove_shapes
from model_export.fold.subjects import Candidate, find_candidates
from model_export.ir import ir
from service.bundle import FoldReport, LedgerEntry


@dataclass(frozen=True, kw_only=True)
class Channel:
    """The channel with the largest gain: γ and σ² where they are told apart, the gain γ/√(σ²+ε), and the shift."""

    number: int
    gamma: float | None
    variance: float | None
    gain: float
    shift: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A BatchNorm in its place. `reads` and `read_by` describe the neighbours, `worst` is None where it has no map."""

    entry: LedgerEntry
    reads: str
    read_by: tuple[str, ...]
    num_channels: int
    smallest_gain: float
    worst: Channel | None


def explain(model: ir.Model, report: FoldReport, name: str) -> Explanation:
    """Tell the story of the BatchNorm `name` of the unfolded `model`, whose fold gave `report`.

    Raises:
        FoldInvalid: there is none of that name; names those that there are.
    """
    entry = next((entry for entry in report.entries if entry.batchnorm == name), None)
    if entry is None:
        known = ", ".join(entry.batchnorm for entry in report.entries[:8]) or "none"
        raise FoldInvalid(f"no BatchNorm is called {name}; the model has {known}")
    scope, candidate = _find(model, name)
    gains, shifts = _map_of(candidate, scope)
    return Explanation(
        entry=entry,
        reads=_maker(candidate),
        read_by=tuple(_described(node) for node in dict.fromkeys(candidate.output.consumers())),
        num_channels=len(gains),
        smallest_gain=float(np.abs(gains).min(initial=np.inf)) if len(gains) else 0.0,
        worst=_worst(candidate, scope, gains, shifts),
    )


def _find(model: ir.Model, name: str) -> tuple[Scope, Candidate]:
    for scope in scopes_of(model, prove_shapes(model)):
        for candidate in find_candidates(scope):
            if candidate.subject.name == name:
                return scope, candidate
    raise FoldInvalid(f"no BatchNorm is called {name}")


def _map_of(candidate: Candidate, scope: Scope) -> tuple[np.ndarray, np.ndarray]:
    """Gain and shift for each channel; empty where it has no map that is the same at every run."""
    try:
        affine = candidate.affine(scope)
    except Refused:
        return np.empty(0), np.empty(0)
    size = max(affine.scale.size, affine.shift.size)
    return tuple(np.broadcast_to(values.reshape(-1), (size,)) for values in (affine.scale, affine.shift))  # type: ignore[return-value]


def _worst(candidate: Candidate, scope: Scope, gains: np.ndarray, shifts: np.ndarray) -> Channel | None:
    if not len(gains):
        return None
    number = int(np.argmax(np.abs(gains)))
    gamma = variance = None
    if candidate.subject.form == "BatchNormalization":
        parameters = read_batchnorm(candidate.nodes[0], scope)
        gamma, variance = float(parameters.scale[number]), float(parameters.var[number])
    return Channel(
        number=number, gamma=gamma, variance=variance, gain=float(gains[number]), shift=float(shifts[number])
    )


def _maker(candidate: Candidate) -> str:
    source = candidate.source
    producer = None if source is None else source.producer()
    if producer is not None:
        return _described(producer)
    return "nothing" if source is None else f"{source.name}, an input"


def _described(node: ir.Node) -> str:
    return f"{name_of(node)} ({node.op_type})"
