"""Moments by `time.perf_counter` as times of day, for those who read logs and traces.

Durations come from `perf_counter` alone: a clock that is set anew moves what happens afterwards, and stretches nothing.
"""

from __future__ import annotations

import time

REFRESH_SECONDS = 1.0


class WallClock:
    """What is to be added to a moment; it is looked up again every second, as clocks are set and drift."""

    def __init__(self) -> None:
        self._offset_ns = 0
        self._until = 0.0

    def read(self, moment: float) -> int:
        """Give the nanoseconds from 1970 on (UTC) that a moment by `perf_counter` is at."""
        now = time.perf_counter()
        if now >= self._until:
            self._offset_ns = time.time_ns() - time.perf_counter_ns()
            self._until = now + REFRESH_SECONDS
        return self._offset_ns + round(moment * 1e9)
