"""The order of a run: every peer in every round, one window after the other, so that what drifts drifts for all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.servers import PEERS


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How often, how long and under how many connections each peer is measured."""

    rounds: int = 3
    seconds: int = 3
    connections: tuple[int, ...] = (1, 16, 64)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One window to come. Round 0 warms up and is not counted."""

    round: int
    connections: int
    peer: str


def slots(plan: Plan) -> Iterator[Slot]:
    """Give the windows in their order; each round starts with another peer, so that none is always the first."""
    yield from _round(0, max(plan.connections))
    for number in range(1, plan.rounds + 1):
        for connections in plan.connections:
            yield from _round(number, connections)


def _round(number: int, connections: int) -> Iterator[Slot]:
    first = number % len(PEERS)
    for peer in (*PEERS[first:], *PEERS[:first]):
        yield Slot(round=number, connections=connections, peer=peer)
