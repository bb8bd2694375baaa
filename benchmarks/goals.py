"""What the project set out to reach, beside what a run measured: computed from the run, never by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.cast import FOLDSERVE, OTHERS, TUTORIAL
from benchmarks.report import Cost, Report
from benchmarks.summary import Row

UNDER_LOAD = (16, 64)
LARGEST_TAIL = 2.0
START_SECONDS = 1.0
LEAD_UNDER_LOAD = 3.0


@dataclass(frozen=True)
class Goal:
    """A goal in words, what was measured in words, and whether it is reached."""

    goal: str
    measured: str
    reached: bool


def goals(report: Report) -> list[Goal]:
    """The goals that this run can speak of."""
    rows = [row for row in report.rows if row.peer == FOLDSERVE.name]
    wide = [row for row in rows if row.model == "book784"]
    narrow = [row for row in rows if row.model == "table30"]
    return [
        *_at_least("784 floats, 16 and 64 connections: req/s ≥ 12 × the tutorial's", 12, _tutorial(_loaded(wide))),
        *_at_least("784 floats, 16 and 64 connections: req/s ≥ 0.6 × the floor's", 0.6, _floor(_loaded(wide))),
        *_at_least("784 floats, 1 connection: req/s ≥ 3 × the tutorial's", 3, _tutorial(_lone(wide))),
        *_at_most("784 floats, 1 connection: p50 ≤ 1.4 × the floor's", 1.4, _p50(_lone(wide))),
        *_at_least("30 floats, 16 and 64 connections: req/s ≥ 1.0 × the floor's", 1.0, _floor(_loaded(narrow))),
        *_at_most("30 floats, 1 connection: p50 ≤ 1.15 × the floor's", 1.15, _p50(_lone(narrow))),
        *_tails(report),
        *_starts(report),
        *_leads(report),
        *_memory(report),
    ]


def _loaded(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.connections in UNDER_LOAD]


def _lone(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.connections == 1]


def _tutorial(rows: Sequence[Row]) -> list[float]:
    return [row.to_tutorial for row in rows]


def _floor(rows: Sequence[Row]) -> list[float]:
    return [row.to_floor for row in rows]


def _p50(rows: Sequence[Row]) -> list[float]:
    return [row.p50_to_floor for row in rows]


def _at_least(goal: str, wanted: float, found: Sequence[float]) -> Iterator[Goal]:
    if found:
        yield Goal(goal, _list(found), min(found) >= wanted)


def _at_most(goal: str, wanted: float, found: Sequence[float]) -> Iterator[Goal]:
    if found:
        yield Goal(goal, _list(found), max(found) <= wanted)


def _list(found: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in found)


def _tails(report: Report) -> Iterator[Goal]:
    """A row whose generator did not keep its pace in any round reaches nothing."""
    own = [row for row in report.paced_rows if row.peer == FOLDSERVE.name]
    for arrivals in sorted({row.arrivals for row in own}):
        found = [row for row in own if row.arrivals == arrivals]
        measured = ", ".join(f"{row.model} {row.tail:.1f}" if row.kept else f"{row.model} none" for row in found)
        reached = all(row.tail <= LARGEST_TAIL for row in found)
        yield Goal(f"half the saturating rate, {arrivals} arrivals: p99 ≤ 2 × p50", measured, reached)


def _starts(report: Report) -> Iterator[Goal]:
    if report.startup is not None:
        seconds = report.startup.median_of(FOLDSERVE)
        yield Goal("from start to first answer, small model: < 1 s", f"{seconds:.2f} s", seconds < START_SECONDS)


def _leads(report: Report) -> Iterator[Goal]:
    """Ours beside each other server's, at the same load: the smallest lead is the one that counts."""
    others = {peer.name for peer in (TUTORIAL, *OTHERS)}
    if not {peer.name for peer in OTHERS} & {row.peer for row in report.rows}:
        return
    own = {(row.model, row.connections): row for row in report.rows if row.peer == FOLDSERVE.name}
    pairs = [(own[row.model, row.connections], row) for row in report.rows if row.peer in others]
    leads = {
        "req/s": [ours.requests_per_second / theirs.requests_per_second for ours, theirs in pairs],
        "p50": [theirs.p50 / ours.p50 for ours, theirs in pairs],
        "p99": [theirs.p99 / ours.p99 for ours, theirs in pairs],
    }
    smallest = ", ".join(f"{what} {min(found):.1f} ×" for what, found in leads.items())
    ahead = all(min(found) > 1 for found in leads.values())
    yield Goal("ahead of every other server at each number of connections", f"at least {smallest}", ahead)
    loaded = [
        ours.requests_per_second / theirs.requests_per_second for ours, theirs in pairs if ours in _loaded([ours])
    ]
    yield from _at_least("16 and 64 connections: req/s ≥ 3 × every other server's", LEAD_UNDER_LOAD, [min(loaded)])


def _memory(report: Report) -> Iterator[Goal]:
    """Ours beside the smallest of the others', model by model."""
    others = {peer.name for peer in (TUTORIAL, *OTHERS)}
    known = [cost for cost in report.costs if cost.memory_bytes is not None]
    if not {peer.name for peer in OTHERS} & {cost.peer for cost in known}:
        return
    pairs = []
    for ours in (cost for cost in known if cost.peer == FOLDSERVE.name):
        theirs = [cost for cost in known if cost.model == ours.model and cost.peer in others]
        pairs.append((ours, min(theirs, key=_bytes)))
    measured = ", ".join(
        f"{ours.model} {_bytes(ours) / 1e6:.0f} MB; {least.peer} {_bytes(least) / 1e6:.0f} MB" for ours, least in pairs
    )
    reached = all(_bytes(ours) < _bytes(least) for ours, least in pairs)
    yield Goal("memory of one worker below every other server's, with the same model", measured, reached)


def _bytes(cost: Cost) -> int:
    return cost.memory_bytes or 0
