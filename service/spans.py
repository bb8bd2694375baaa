"""Spans out of entries, by OpenTelemetry's own SDK; loaded only where traces are wanted.

One span of the server for a request, with the attributes of OpenTelemetry's conventions for HTTP or RPC and a few of
ours; its children are the stages, where the model was asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from service.entries import Entry
from service.wall_clock import WallClock

SERVICE = "foldserve"
SEND_SECONDS = 2.0
MAX_REASON = 300
OPEN_TELEMETRY = "opentelemetry"  # the logger above all of its own


class SpanSender:
    """Sends spans to the collector at an address, `http://…/v1/traces`. Only one thread may send."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._clock = WallClock()
        self._ended = _Ended()
        self._exporter: SpanExporter = OTLPSpanExporter(endpoint=address, timeout=SEND_SECONDS)
        provider = TracerProvider(ALWAYS_ON, Resource.create({"service.name": SERVICE}), shutdown_on_exit=False)
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer(SERVICE)
        self._said = _Said()
        self._said.take_over()

    def send(self, entries: Sequence[Entry]) -> str | None:
        """Send the spans of some requests; None if the collector has them, else why not."""
        for entry in entries:
            self._make(entry)
            time.sleep(0)  # some 100 µs have gone: let the event loop have its turn
        spans = self._ended.take()
        result = self._exporter.export(spans) if spans else SpanExportResult.SUCCESS
        said = self._said.take()
        return None if result is SpanExportResult.SUCCESS else said[:MAX_REASON]

    def close(self, *, is_idle: bool) -> None:
        """End, and give up what is being sent, if anything still is: that would have a word to say of it."""
        self._exporter.shutdown()
        if is_idle:
            self._said.give_back()

    def _make(self, entry: Entry) -> None:
        clock = self._clock
        arrived = clock.read(entry.arrived)

        def moment(at: float) -> int:
            """By one reading of the clock for the whole span."""
            return arrived + round((at - entry.arrived) * 1e9)

        span = self._tracer.start_span(
            _name(entry),
            context=_parent(entry),
            kind=trace.SpanKind.SERVER,
            attributes=_attributes(entry),
            start_time=arrived,
        )
        if entry.is_failure:
            span.set_status(trace.StatusCode.ERROR)
        context = trace.set_span_in_context(span, Context())
        for stage, begin, end in entry.stages():
            self._tracer.start_span(stage, context=context, start_time=moment(begin)).end(moment(end))
        span.end(moment(entry.answered))


class _Ended(SpanProcessor):
    """Keeps the spans that have ended until they are taken."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span."""
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        """Give those that were kept."""
        spans, self._spans = self._spans, []
        return spans


class _Said(logging.Handler):
    """Keeps the first of what OpenTelemetry says of a failure, which says most; it would say it each time anew."""

    def __init__(self) -> None:
        super().__init__()
        self._first = ""
        self._logger = logging.getLogger(OPEN_TELEMETRY)

    def take_over(self) -> None:
        """Listen, instead of whoever else does."""
        self._logger.addHandler(self)
        self._logger.propagate = False

    def give_back(self) -> None:
        """Listen no more."""
        self._logger.removeHandler(self)
        self._logger.propagate = True

    def take(self) -> str:
        """Give what was said since the last time."""
        first, self._first = self._first, ""
        return first

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self._first = self._first or record.getMessage()


def _parent(entry: Entry) -> Context:
    if entry.trace is None:
        return Context()
    caller = trace.SpanContext(
        int(entry.trace.trace_id, 16),
        int(entry.trace.parent_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(caller), Context())


def _name(entry: Entry) -> str:
    """Name the span; by its path only if that led to a model, as of other paths there is no end."""
    if not entry.method:
        return entry.path.lstrip("/") or entry.protocol
    return f"{entry.method} {entry.path}" if entry.model and entry.path else entry.method


def _attributes(entry: Entry) -> dict[str, Any]:
    about = {
        "foldserve.request_id": entry.request_id.decode("latin-1"),
        "foldserve.model": entry.model,
        "foldserve.version": entry.version or "",
        "foldserve.protocol": entry.protocol,
        "client.address": entry.client,
        "error.type": (entry.reason or str(entry.status)) if entry.is_failure else "",
        "foldserve.reason": entry.reason,
    }
    transport = _http_attributes(entry) if entry.method else _rpc_attributes(entry)
    return transport | {name: value for name, value in about.items() if value}


def _http_attributes(entry: Entry) -> dict[str, Any]:
    about = {
        "http.request.method": entry.method,
        "url.path": entry.path or None,
        "url.scheme": "http",
        "http.response.status_code": entry.status,
        "http.request.body.size": entry.bytes_in,
    }
    return {name: value for name, value in about.items() if value is not None}


def _rpc_attributes(entry: Entry) -> dict[str, Any]:
    service, _, method = entry.path.lstrip("/").rpartition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
