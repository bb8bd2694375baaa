"""From windows to a table: medians over rounds, how far the rounds lie apart, and ratios within the same round.

A ratio is taken between two windows of one round, which lie seconds apart, and only then the median over rounds: what
slows the machine for a while slows both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.load import Measured
from benchmarks.servers import FLOOR, PEERS, TUTORIAL, TUTORIAL_ONE_THREAD
from benchmarks.usage import Usage


@dataclass(frozen=True, kw_only=True)
class Window:
    """One measurement, and where it belongs; `usage` is who used the processors meanwhile, if that is known."""

    model: str
    connections: int
    peer: str
    round: int
    measured: Measured
    usage: Usage | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One peer under so many connections: medians over rounds; times in µs; `spread` is (max − min)/median of req/s.

    `cpu` is what the server's process used for a request, all its threads together.
    """

    model: str
    connections: int
    peer: str
    requests_per_second: float
    spread: float
    p50: float
    p99: float
    cpu: float | None
    to_floor: float
    to_tutorial: float
    to_one_thread: float


def summarise(windows: Sequence[Window]) -> tuple[Row, ...]:
    """One row for each model, number of connections and peer, in the order of the windows."""
    keys = dict.fromkeys((window.model, window.connections) for window in windows)
    return tuple(row for key in keys for row in _rows([one for one in windows if (one.model, one.connections) == key]))


def worst_spread(rows: Sequence[Row]) -> float:
    """The largest spread of any row."""
    return max(row.spread for row in rows)


def _rows(windows: Sequence[Window]) -> list[Row]:
    """The rows of one model under one number of connections."""
    in_order = sorted(windows, key=lambda window: window.round)
    by_peer = {peer: [window for window in in_order if window.peer == peer] for peer in PEERS}
    return [_row(own, by_peer) for own in by_peer.values()]


def _row(own: list[Window], by_peer: dict[str, list[Window]]) -> Row:
    rates = [window.measured.requests_per_second for window in own]
    middle = statistics.median(rates)
    return Row(
        model=own[0].model,
        connections=own[0].connections,
        peer=own[0].peer,
        requests_per_second=middle,
        spread=(max(rates) - min(rates)) / middle,
        p50=_median(own, lambda measured: measured.p50),
        p99=_median(own, lambda measured: measured.p99),
        cpu=_cpu(own),
        to_floor=_ratio(own, by_peer[FLOOR]),
        to_tutorial=_ratio(own, by_peer[TUTORIAL]),
        to_one_thread=_ratio(own, by_peer[TUTORIAL_ONE_THREAD]),
    )


def _median(windows: list[Window], value: Callable[[Measured], float]) -> float:
    return statistics.median(value(window.measured) for window in windows)


def _cpu(windows: list[Window]) -> float | None:
    each = [window.usage.server / window.measured.requests * 1e6 for window in windows if window.usage is not None]
    return statistics.median(each) if each else None


def _ratio(own: list[Window], base: list[Window]) -> float:
    pairs = zip(own, base, strict=True)
    return statistics.median(a.measured.requests_per_second / b.measured.requests_per_second for a, b in pairs)
