"""From windows to tables: medians over rounds, how far the rounds lie apart, and ratios within the same round.

A ratio is taken between two windows of one round, which lie seconds apart, and only then the median over rounds: what
slows the machine for a while slows both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.cast import FLOOR, FLOOR_RAW, FOLDSERVE, HAVE_RAW_FLOOR, RANK, TUTORIAL
from benchmarks.generator import Arrivals, Paced
from benchmarks.load import Measured
from benchmarks.paced import kept_pace
from benchmarks.usage import Usage


@dataclass(frozen=True, kw_only=True)
class Window:
    """One measurement of a peer (by its name), and where it belongs; `usage` is who used the processors meanwhile."""

    model: str
    connections: int
    peer: str
    round: int
    measured: Measured
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class PacedWindow:
    """One measurement of open-loop load at `rate` requests a second, and where it belongs."""

    model: str
    peer: str
    round: int
    arrivals: Arrivals
    rate: float
    paced: Paced


@dataclass(frozen=True, kw_only=True)
class Row:
    """One peer under so many connections: medians over rounds; times in µs; `spread` is (max − min)/median of req/s.

    `cpu` is what the server's processes used for a request; `p50_to_floor` is of latencies, the other ratios of req/s;
    `to_predict` is to our own `/predict`.
    """

    model: str
    connections: int
    peer: str
    requests_per_second: float
    spread: float
    p50: float
    p99: float
    cpu: float
    to_floor: float
    to_tutorial: float
    to_predict: float
    p50_to_floor: float


@dataclass(frozen=True, kw_only=True)
class PacedRow:
    """One peer asked at a pace: medians over the rounds in which the generator kept it; times in µs.

    `tail` is p99 over p50, the median of the rounds' own ratios; `kept` of `num_rounds` rounds count. NaN: none did.
    """

    model: str
    peer: str
    arrivals: Arrivals
    rate: float
    p50: float
    p99: float
    p999: float
    tail: float
    late_p99: float
    kept: int
    num_rounds: int


def summarise(windows: Sequence[Window]) -> tuple[Row, ...]:
    """One row for each model, number of connections and peer; peers in the order of the cast."""
    keys = dict.fromkeys((window.model, window.connections) for window in windows)
    return tuple(row for key in keys for row in _rows([one for one in windows if (one.model, one.connections) == key]))


def summarise_paced(windows: Sequence[PacedWindow]) -> tuple[PacedRow, ...]:
    """One row for each model, peer and kind of arrivals; peers in the order of the cast."""
    keys = dict.fromkeys((window.model, window.peer, window.arrivals) for window in windows)
    rows = [_paced_row([one for one in windows if (one.model, one.peer, one.arrivals) == key]) for key in keys]
    models = list(dict.fromkeys(window.model for window in windows))
    return tuple(sorted(rows, key=lambda row: (models.index(row.model), RANK[row.peer], row.arrivals)))


def worst_spread(rows: Sequence[Row]) -> float:
    """The largest spread of any row."""
    return max(row.spread for row in rows)


def _rows(windows: Sequence[Window]) -> list[Row]:
    """The rows of one model under one number of connections."""
    in_order = sorted(windows, key=lambda window: window.round)
    names = sorted({window.peer for window in windows}, key=RANK.__getitem__)
    by_peer = {name: [window for window in in_order if window.peer == name] for name in names}
    return [_row(own, by_peer) for own in by_peer.values()]


def _row(own: list[Window], by_peer: dict[str, list[Window]]) -> Row:
    rates = [_rate(window) for window in own]
    floor = by_peer[FLOOR_RAW.name if own[0].peer in HAVE_RAW_FLOOR else FLOOR.name]
    return Row(
        model=own[0].model,
        connections=own[0].connections,
        peer=own[0].peer,
        requests_per_second=statistics.median(rates),
        spread=(max(rates) - min(rates)) / statistics.median(rates),
        p50=statistics.median(window.measured.p50 for window in own),
        p99=statistics.median(window.measured.p99 for window in own),
        cpu=statistics.median(window.usage.server / window.measured.requests * 1e6 for window in own),
        to_floor=_ratio(own, floor, _rate),
        to_tutorial=_ratio(own, by_peer[TUTORIAL.name], _rate),
        to_predict=_ratio(own, by_peer[FOLDSERVE.name], _rate),
        p50_to_floor=_ratio(own, floor, lambda window: window.measured.p50),
    )


def _rate(window: Window) -> float:
    return window.measured.requests_per_second


def _ratio(own: list[Window], base: list[Window], value: Callable[[Window], float]) -> float:
    return statistics.median(value(a) / value(b) for a, b in zip(own, base, strict=True))


def _paced_row(windows: list[PacedWindow]) -> PacedRow:
    kept = [window.paced for window in windows if kept_pace(window.paced)]

    def middle(value: Callable[[Paced], float]) -> float:
        return statistics.median(map(value, kept)) if kept else float("nan")

    return PacedRow(
        model=windows[0].model,
        peer=windows[0].peer,
        arrivals=windows[0].arrivals,
        rate=statistics.median(window.rate for window in windows),
        p50=middle(lambda paced: paced.p50),
        p99=middle(lambda paced: paced.p99),
        p999=middle(lambda paced: paced.p999),
        tail=middle(lambda paced: paced.p99 / paced.p50),
        late_p99=statistics.median(window.paced.late_p99 for window in windows),
        kept=len(kept),
        num_rounds=len(windows),
    )
