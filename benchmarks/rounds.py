"""The order of a run: every peer in every round, one window after the other, so that what drifts drifts for all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from benchmarks.cast import ALWAYS, OTHERS, Peer
from benchmarks.generator import Arrivals


@dataclass(frozen=True, kw_only=True)
class Inside:
    """How often what lies inside the service is measured: its start, blocks of its steps, blocks of its sessions."""

    num_starts: int = 7
    num_blocks: int = 30
    num_folding_blocks: int = 300


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who is measured, how often, how long, under how many connections; whether we look inside the service too."""

    peers: tuple[Peer, ...] = ALWAYS
    rounds: int = 3
    seconds: int = 2
    connections: tuple[int, ...] = (1, 16, 64)
    inside: Inside | None = None


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One window to come. Round 0 warms up and is not counted."""

    round: int
    connections: int
    peer: Peer


@dataclass(frozen=True, kw_only=True)
class PacedSlot:
    """One window of open-loop load to come, at half the rate that the round's other windows found."""

    round: int
    peer: Peer
    arrivals: Arrivals


def slots(plan: Plan) -> Iterator[Slot | PacedSlot]:
    """Give the windows in their order; each round starts with another peer, so that none is always the first."""
    for peer in plan.peers:
        yield Slot(round=0, connections=max(plan.connections), peer=peer)
    for number in range(1, plan.rounds + 1):
        peers = _rotated(plan.peers, number)
        for connections in plan.connections:
            for peer in peers:
                yield Slot(round=number, connections=connections, peer=peer)
        for peer in peers:
            if peer in ALWAYS or peer in OTHERS:
                for arrivals in get_args(Arrivals):
                    yield PacedSlot(round=number, peer=peer, arrivals=arrivals)


def _rotated(peers: tuple[Peer, ...], number: int) -> tuple[Peer, ...]:
    first = number % len(peers)
    return (*peers[first:], *peers[:first])
