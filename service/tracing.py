"""Traces of requests, sent to a collector by OpenTelemetry's protocol: the server's span in the trace of its client.

A span is made after the answer, out of the times that were noted on the way, and in a thread of its own. So a request
that is traced is as fast as any other, and a collector that is slow, or dead, takes nothing but spans.
"""

from __future__ import annotations

import logging
import time
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.backlog import Backlog, Bounds
from service.entries import Entry
from service.errors import SettingsInvalid
from service.sampling import Budget, Share
from service.trace_context import TraceContext

if TYPE_CHECKING:
    from service.spans import SpanSender

USUAL_PATH = "/v1/traces"
BOUNDS = Bounds(waiting=2048, at_once=16, gather_seconds=0.5)
PER_SECOND = 100
CLOSE_SECONDS = 1.5
COMPLAIN_SECONDS = 60.0

logger = logging.getLogger(__name__)


def open_tracing(endpoint: str, *, sample: float, per_second: int = PER_SECOND) -> Tracing | None:
    """Begin to send traces to a collector, such as http://localhost:4318; None if none is named.

    Raises:
        SettingsInvalid: that is no address, or OpenTelemetry is not installed.
    """
    if not endpoint:
        return None
    address = _complete(endpoint)
    try:
        from service.spans import SpanSender
    except ImportError as err:
        raise SettingsInvalid(
            f"traces need OpenTelemetry, which is not installed ({err}): pip install 'foldserve[otel]'"
        ) from err
    return Tracing(SpanSender(address), sample=sample, per_second=per_second)


def _complete(endpoint: str) -> str:
    """Add the path that all collectors have, if only the collector is named."""
    try:
        parts = urllib.parse.urlsplit(endpoint)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise SettingsInvalid(
            f"the collector of traces: expected an address such as http://localhost:4318, got {endpoint[:80]!r}"
        )
    return endpoint if parts.path.strip("/") else parts._replace(path=USUAL_PATH).geturl()


class Tracing:
    """The spans of requests, of a share of them or of those whose caller keeps the trace; `num_lost` did not get there.

    Of a trace that the caller does not keep, nothing is sent.
    """

    def __init__(self, sender: SpanSender, *, sample: float, per_second: int = PER_SECOND) -> None:
        self._sender = sender
        self._share = Share(sample)
        self._budget = Budget(per_second)
        self._backlog = Backlog("traces", self._send, BOUNDS)
        self._num_unsent = 0
        self._is_failing = False
        self._quiet_until = 0.0

    @property
    def num_lost(self) -> int:
        """How many spans did not get to the collector, or were more than the limit of a second."""
        return self._backlog.num_dropped + self._budget.num_refused + self._num_unsent

    def wants(self, trace: TraceContext | None) -> bool:
        """Say if a request is to be traced; ask once for each."""
        return self._share.chooses() if trace is None else trace.is_sampled

    def write(self, entry: Entry) -> None:
        """Trace a request that is wanted."""
        if self._budget.admits(entry.answered):
            self._backlog.put(entry.bounded())

    def record(self, entry: Entry) -> None:
        """Trace a request, if it is wanted."""
        if self.wants(entry.trace):
            self.write(entry)

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Send what is there, if that takes no longer; say if it was tried."""
        is_done = self._backlog.close(seconds)
        self._sender.close(is_idle=is_done)
        return is_done

    def _send(self, entries: Sequence[Entry]) -> None:
        failure = self._sender.send(entries)
        if failure is None:
            self._recover()
        else:
            self._num_unsent += len(entries)
            self._complain(failure)

    def _complain(self, failure: str) -> None:
        """Say it once, and again after a while."""
        self._is_failing = True
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + COMPLAIN_SECONDS
            logger.warning(
                "traces do not get to %s, and %d are lost; predictions go on, and so do attempts: %s",
                self._sender.address,
                self.num_lost,
                failure,
            )

    def _recover(self) -> None:
        if self._is_failing:
            self._is_failing, self._quiet_until = False, 0.0
            logger.warning("traces get to %s again; %d were lost", self._sender.address, self.num_lost)
