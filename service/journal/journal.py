"""The journal that lanes note their answers in: the access log, and the traces if they are wanted."""

from __future__ import annotations

import time

from service.journal.access import AccessLog
from service.journal.entry import Entry
from service.journal.spans import Spans
from service.protocols.answer import Answer
from service.protocols.contract import Headers
from service.protocols.lane import Lane


class Journal:
    """Notes requests; most of them cost it a comparison or two."""

    def __init__(self, log: AccessLog | None, spans: Spans | None) -> None:
        self._log = log
        self._spans = spans

    def note(self, lane: Lane, answer: Answer, arrived: float, headers: Headers, request_id: bytes) -> None:
        """Note a request that was answered now."""
        is_logged = self._log is not None and self._log.is_wanted(answer.status, headers.traceparent)
        is_traced = self._spans is not None and self._spans.is_wanted(headers.traceparent)
        if not (is_logged or is_traced):
            return
        entry = Entry(
            protocol=lane.protocol,
            model=lane.model.name,
            version=lane.model.version or "",
            status=answer.status,
            reason=answer.reason,
            answer_bytes=len(answer.body),
            headers=headers,
            request_id=request_id,
            arrived=arrived,
            answered=time.perf_counter(),
            times=answer.times,
        )
        if is_logged and self._log is not None:
            self._log.write(entry)
        if is_traced and self._spans is not None:
            self._spans.record(entry)
