"""Which requests are logged: a share of the successes and refusals, and all failures, to a limit of lines a second.

A request of a trace that its caller keeps is logged too, so that the trace has its line. Of refusals (4xx) there is at
least one a second: the first sign of a client that does everything wrong. Failures (5xx) have a limit of their own, so
that no flood of other lines keeps one out. With a share of 0 only these two are left.
"""

from __future__ import annotations

from service.entries import Entry
from service.logs.line_file import LineFile
from service.logs.throttle import Throttle
from service.sampling import Budget, Share
from service.trace_context import TraceContext

PER_SECOND = 200  # some gigabytes a day, if it goes on all day


class AccessLog:
    """The lines of requests. All of it is called on the event loop."""

    def __init__(self, file: LineFile, *, sample: float, per_second: int = PER_SECOND) -> None:
        self._share = Share(sample)
        self._follows_traces = sample > 0
        self.notes_successes = sample > 0
        self._one_refusal = Budget(1)
        self._usual = Throttle(file.put, per_second)
        self._failures = Throttle(file.put, per_second)

    @property
    def num_left_out(self) -> int:
        """How many lines that should have been written were more than the limit."""
        return self._usual.num_left_out + self._failures.num_left_out

    def wants(self, status: int, trace: TraceContext | None, now: float) -> bool:
        """Say if a request is to be logged; ask once for each, `now` by `time.perf_counter`."""
        if status >= 500 or self._share.chooses() or (trace is not None and trace.is_sampled and self._follows_traces):
            return True
        return status >= 400 and self._one_refusal.admits(now)

    def write(self, entry: Entry) -> None:
        """Log a request that is wanted."""
        (self._failures if entry.status >= 500 else self._usual).put(entry.bounded(), entry.answered)

    def record(self, entry: Entry) -> None:
        """Log a request, if it is wanted."""
        if self.wants(entry.status, entry.trace, entry.answered):
            self.write(entry)
