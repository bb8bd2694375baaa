"""The judgement: which cause made a slow request slow, in one word and one sentence.

A request's excess is what it took beyond the usual time of its model, the median of its last thousand. The causes that
were seen are laid beside it, in seconds that do not overlap. If together they come to at least half of the excess, the
largest is the main cause. If not, the request was `unexplained`, or, if it took no more than twice the usual time,
there is nothing to explain: it was the model's own run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from service.tail.slow import Evidence, Slow

EXPLAINED_SHARE = 0.5
USUAL_TIMES = 2.0

OTHER_REQUESTS = "other requests"
CPU_WAIT = "waiting for a CPU"
GARBAGE = "garbage collection"
PAGE_FAULTS = "page faults"
OTHER_THREADS = "other threads"
STEAL = "CPU steal"
CAUSES = (GARBAGE, OTHER_REQUESTS, CPU_WAIT, PAGE_FAULTS, OTHER_THREADS, STEAL)
OWN_RUN = "the model's own run"
UNEXPLAINED = "unexplained"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A slow request with its main cause, a sentence that says why, and what was seen of each cause, in seconds."""

    slow: Slow
    main_cause: str
    because: str
    seconds: dict[str, float]


def judge(slow: Slow, usual_seconds: float) -> Judged:
    """Name the main cause, where requests to this model usually take so long."""
    seconds = _weigh(slow, usual_seconds)
    excess = slow.seconds - usual_seconds
    largest = max(seconds, key=lambda cause: seconds[cause])
    if excess > 0 and sum(seconds.values()) >= EXPLAINED_SHARE * excess:
        cause = largest
    else:
        cause = OWN_RUN if slow.seconds <= USUAL_TIMES * usual_seconds else UNEXPLAINED
    return Judged(slow=slow, main_cause=cause, because=_say(cause, slow, seconds, usual_seconds), seconds=seconds)


def summarize(judged: Sequence[Judged]) -> str:
    """Say how many had which main cause: `of the 3 slowest: 2 other requests, 1 garbage collection`."""
    counted = Counter(one.main_cause for one in judged).most_common()
    said = ", ".join(f"{count} {cause}" for cause, count in counted) or "nothing was predicted yet"
    return f"of the {len(judged)} slowest: {said}"


def _weigh(slow: Slow, usual_seconds: float) -> dict[str, float]:
    """Give each cause its seconds: the surest first, each gets of what is left.

    What is counted exactly may take all; the estimates leave the request its usual time.
    """
    evidence, left = slow.evidence, slow.seconds
    seconds = dict.fromkeys(CAUSES, 0.0)
    wanted = (
        (GARBAGE, evidence.garbage_seconds, 0.0),
        (OTHER_REQUESTS, sum(evidence.routes.values()), 0.0),
        (CPU_WAIT, evidence.cpu_wait_seconds, 0.0),
        (PAGE_FAULTS, evidence.fault_seconds, 0.0),
        # Under load some waiting for other predictions is usual, and explains nothing.
        (OTHER_REQUESTS, evidence.predictions_seconds - usual_seconds, 0.0),
        (OTHER_THREADS, evidence.other_threads_seconds, usual_seconds),
        # How long a disk takes is not counted anywhere.
        (PAGE_FAULTS, math.inf if evidence.major_faults else 0.0, usual_seconds),
        # The ticks are coarse, and of all CPUs: they are believed where nothing else explains much.
        (STEAL, evidence.steal_seconds, USUAL_TIMES * usual_seconds),
    )
    for cause, most, kept in wanted:
        part = max(0.0, min(most, left - kept))
        seconds[cause] += part
        left -= part
    return seconds


def _say(cause: str, slow: Slow, seconds: dict[str, float], usual_seconds: float) -> str:
    evidence = slow.evidence
    sentences = {
        OTHER_REQUESTS: _say_others(evidence),
        CPU_WAIT: "other threads or processes had its CPU",
        GARBAGE: f"generation {' and '.join(map(str, evidence.generations))} was collected",
        PAGE_FAULTS: f"{evidence.minor_faults:,} pages were new, {evidence.major_faults:,} were read from disk",
        OTHER_THREADS: "other threads of the server ran",
        STEAL: f"the host took {_micro(evidence.steal_seconds)} in {_micro(evidence.steal_window_seconds)} around it",
        UNEXPLAINED: f"its thread was on a CPU for {_micro(evidence.ran_seconds)}",
        OWN_RUN: "nothing was seen",
    }
    part = f"{_micro(seconds[cause])} of " if cause in seconds else ""
    return f"{sentences[cause]}: {part}{_micro(slow.seconds)}, usual are {_micro(usual_seconds)}"


def _say_others(evidence: Evidence) -> str:
    routes = sorted(evidence.routes.items(), key=lambda item: -item[1])
    said = [f"{route} ran for {_micro(seconds)}" for route, seconds in routes[:2]]
    if evidence.num_predictions:
        said.append(f"other predictions were answered ({evidence.num_predictions})")
    return ", ".join(said)


def _micro(seconds: float) -> str:
    return f"{1e6 * seconds:,.0f} µs"
