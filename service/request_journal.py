"""The journal that lanes note their answers in: the access log, and the traces if they are wanted."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.entries import Entry
from service.logs.opening import Logs, logging_to
from service.protocols.answer import Answer
from service.protocols.contract import Headers
from service.protocols.lane import Lane
from service.settings import Settings
from service.trace_context import read_traceparent
from service.tracing import Tracing, open_tracing

OURS = "service"  # the loggers of this package


class RequestJournal:
    """Notes requests; most of them cost it a comparison or two."""

    def __init__(self, logs: Logs | None, tracing: Tracing | None) -> None:
        self._logs = logs
        self._access = None if logs is None else logs.access
        self._tracing = tracing
        self.notes_successes = tracing is not None or (logs is not None and logs.access.notes_successes)

    @property
    def num_lines_lost(self) -> int:
        """How many log lines were never written: nobody took them in time, or they were too many a second."""
        return 0 if self._logs is None else self._logs.num_dropped + self._logs.num_left_out

    @property
    def num_spans_lost(self) -> int:
        """How many traced requests never got to the collector."""
        return 0 if self._tracing is None else self._tracing.num_lost

    def note(self, lane: Lane, answer: Answer, arrived: float, headers: Headers, request_id: bytes) -> None:
        """Note a request that was answered now."""
        trace, now = read_traceparent(headers.traceparent) if headers.traceparent else None, time.perf_counter()
        is_logged = self._access is not None and self._access.wants(answer.status, trace, now)
        is_traced = self._tracing is not None and self._tracing.wants(trace)
        if is_logged or is_traced:
            entry = _describe(lane, answer, (arrived, now), request_id)._replace(trace=trace)
            if is_logged and self._access is not None:
                self._access.write(entry)
            if is_traced and self._tracing is not None:
                self._tracing.write(entry)


def _describe(lane: Lane, answer: Answer, span: tuple[float, float], request_id: bytes) -> Entry:
    return Entry(
        request_id=request_id,
        status=answer.status,
        arrived=span[0],
        answered=span[1],
        reason=answer.reason,
        times=answer.times,
        model=lane.model.name,
        version=lane.model.version,
        protocol=lane.protocol,
        method="POST",
    )


@contextmanager
def open_journal(settings: Settings) -> Iterator[RequestJournal]:
    """Open the log, to stderr, and the traces.

    Raises:
        SettingsInvalid: traces are wanted, and that is no address, or their packages are not installed.
    """
    tracing = open_tracing(settings.traces or "", sample=settings.trace_sample)
    ours = logging.getLogger(OURS)
    level = ours.level
    ours.setLevel(logging.INFO)
    try:
        with logging_to(sys.stderr, settings.log, sample=settings.log_sample) as logs:
            yield RequestJournal(logs, tracing)
    finally:
        ours.setLevel(level)
        if tracing is not None:
            tracing.close()
