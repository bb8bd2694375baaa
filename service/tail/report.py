"""The tail report as JSON: a summary, then the slowest predictions one by one, in microseconds.

Written and read here, so that what prints it (`python -m service.tail`) and what serves it agree.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

import msgspec

from service.tail.causes import Judged, judge, summarize
from service.tail.counters import tick_seconds
from service.tail.slow import Evidence, Kept

MICRO = 1e6


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted between a request's earliest arrival and its answer."""

    ran_us: float
    garbage_generations: list[int]
    minor_faults: int
    major_faults: int
    preemptions: int
    predictions: int
    routes_us: dict[str, float]
    steal_us: float
    steal_window_us: float


class SlowRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request: `us` is `waited_us` (before it was read: at most so long) and `answering_us` (from then on)."""

    at: str
    model: str
    status: int
    us: float
    waited_us: float
    answering_us: float
    main_cause: str
    because: str
    causes_us: dict[str, float]
    counted: Counted


class TailReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one process. `usual_us` is the median of each model's last thousand predictions."""

    summary: str
    pid: int
    note: str
    since: str
    predictions: int
    usual_us: dict[str, float]
    main_causes: dict[str, int]
    slowest: list[SlowRequest]


def write_report(kept: Kept) -> TailReport:
    """Judge what this process keeps, and write it down."""
    usual = kept.usual_seconds
    judged = [judge(slow, usual[slow.model]) for slow in kept.slowest]
    causes = [one.main_cause for one in judged]
    return TailReport(
        summary=summarize(judged),
        pid=os.getpid(),
        note=_note(kept),
        since=_write_time(kept.since),
        predictions=kept.num_predictions,
        usual_us={model: _micro(seconds) for model, seconds in usual.items()},
        main_causes={cause: causes.count(cause) for cause in dict.fromkeys(causes)},
        slowest=[_write(one) for one in judged],
    )


def _note(kept: Kept) -> str:
    said = []
    if kept.num_processes > 1:
        said.append(
            f"one of {kept.num_processes} processes, each of which keeps its own: another may answer the next time"
        )
    if not kept.knows_waiting:
        said.append("this system does not say how long a thread waits for a CPU")
    said.append(f"steal time is counted in ticks of {tick_seconds() * 1000:g} ms, over all CPUs")
    return "; ".join(said)


def _write(judged: Judged) -> SlowRequest:
    slow = judged.slow
    return SlowRequest(
        at=_write_time(slow.at),
        model=slow.model,
        status=slow.status,
        us=_micro(slow.seconds),
        waited_us=_micro(slow.waited_seconds),
        answering_us=_micro(slow.answering_seconds),
        main_cause=judged.main_cause,
        because=judged.because,
        causes_us={cause: _micro(seconds) for cause, seconds in judged.seconds.items() if seconds},
        counted=_write_counts(slow.evidence),
    )


def _write_counts(evidence: Evidence) -> Counted:
    return Counted(
        ran_us=_micro(evidence.ran_seconds),
        garbage_generations=list(evidence.generations),
        minor_faults=evidence.minor_faults,
        major_faults=evidence.major_faults,
        preemptions=evidence.preemptions,
        predictions=evidence.num_predictions,
        routes_us={route: _micro(seconds) for route, seconds in evidence.routes.items()},
        steal_us=_micro(evidence.steal_seconds),
        steal_window_us=_micro(evidence.steal_window_seconds),
    )


def _micro(seconds: float) -> float:
    return round(MICRO * seconds, 1)


def _write_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
