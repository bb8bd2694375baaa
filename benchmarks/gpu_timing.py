"""How runs are timed beside one another: all ways take turns, round after round, and every single run counts."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Run = Callable[[], object]

WARM_UP_RUNS = 10
MIN_RUNS = 3  # a turn
MAX_RUNS = 200


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What `count` runs took, in microseconds. `p99` is the smallest that 99 of 100 runs do not exceed."""

    median: float
    p99: float
    count: int


def summarise(seconds: Sequence[float]) -> Timing:
    """Summarise runs, at least one."""
    in_order = sorted(seconds)
    place = math.ceil(0.99 * len(in_order)) - 1
    return Timing(median=1e6 * statistics.median(in_order), p99=1e6 * in_order[place], count=len(in_order))


def take_turns(runs: Mapping[str, Run], *, rounds: int, seconds: float) -> dict[str, Timing]:
    """Time each of the runs for about so many seconds in each round; another one begins each time."""
    for run in runs.values():
        _time(run, WARM_UP_RUNS)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            taken[name] += _time_turn(runs[name], seconds)
    return {name: summarise(times) for name, times in taken.items()}


def _time_turn(run: Run, seconds: float) -> list[float]:
    (once,) = _time(run, 1)  # also brings caches back, and is not counted
    return _time(run, max(MIN_RUNS, min(MAX_RUNS, int(seconds / max(once, 1e-7)))))


def _time(run: Run, count: int) -> list[float]:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times
