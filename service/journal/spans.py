"""OpenTelemetry traces of some requests, made after their answers from the times that were noted.

One server span a request, by the semantic conventions for HTTP servers, with the stages as its children. The SDK's
batch processor sends them from a thread of its own, by OTLP over HTTP; its queue is bounded, so a collector that is
dead or slow costs traces and nothing else.
"""

from __future__ import annotations

import logging
import random
from functools import partial
from itertools import pairwise
from typing import Any

from service.errors import SettingsInvalid
from service.journal.background import Background
from service.journal.entry import Entry, to_wall_clock
from service.journal.traceparent import TraceParent, read_traceparent

STAGES = ("parse", "queue", "infer", "encode")
EXPORT_SECONDS = 2.0  # for one try; there is another batch after it


class Spans:
    """Records requests as spans."""

    def __init__(self, provider: Any, sample: float) -> None:
        self._provider = provider
        self._background = Background("spans")  # making a span takes longer than a small model
        self._tracer = provider.get_tracer("foldserve")
        self._sample = sample

    def is_wanted(self, traceparent: bytes) -> bool:
        """Decide if a request is recorded: as its caller does, or else some of them at random."""
        if traceparent:
            trace = read_traceparent(traceparent)
            if trace is not None:
                return trace.is_sampled
        return random.random() < self._sample  # noqa: S311 - a choice of examples, not a secret

    def record(self, entry: Entry) -> None:
        """Have the spans of a request made that was answered."""
        self._background.put(partial(self._make, entry))

    def close(self) -> None:
        """Send what waits, if the collector takes it soon."""
        self._background.close()
        self._background = Background("spans")
        self._background.put(self._provider.shutdown)
        self._background.close(2 * EXPORT_SECONDS)

    def _make(self, entry: Entry) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        arrived = _nanoseconds(entry.arrived)
        span = self._tracer.start_span(
            f"POST {entry.protocol}",
            context=_parent(read_traceparent(entry.headers.traceparent)),
            kind=SpanKind.SERVER,
            start_time=arrived,
            attributes=_attributes(entry),
        )
        if entry.status >= 500:
            span.set_status(Status(StatusCode.ERROR, entry.reason))
        inside = set_span_in_context(span)
        for stage, (begin, end) in zip(STAGES, pairwise((entry.arrived, *(entry.times or ()))), strict=False):
            child = self._tracer.start_span(stage, context=inside, start_time=_nanoseconds(begin))
            child.end(_nanoseconds(end))
        span.end(_nanoseconds(entry.answered))


def open_spans(endpoint: str, sample: float) -> Spans:
    """Send spans to a collector, such as http://localhost:4318/v1/traces.

    Raises:
        SettingsInvalid: OpenTelemetry's packages are not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as err:
        raise SettingsInvalid(f"--traces needs more packages ({err}): pip install 'foldserve[otel]'") from err
    # Of a collector that is away the SDK says so for every batch: the metrics tell it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    provider = TracerProvider(resource=Resource.create({"service.name": "foldserve"}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=EXPORT_SECONDS * 1e3))
    return Spans(provider, sample)


def _attributes(entry: Entry) -> dict[str, Any]:
    return {
        "http.request.method": "POST",
        "http.response.status_code": entry.status,
        "http.response.body.size": entry.answer_bytes,
        "foldserve.protocol": entry.protocol,
        "foldserve.model": entry.model,
        "foldserve.version": entry.version,
        "foldserve.request_id": entry.request_id.decode("latin-1"),
        **({"error.type": entry.reason} if entry.status >= 500 else {}),
    }


def _parent(trace: TraceParent | None) -> Any:
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    if trace is None:
        return None
    context = SpanContext(
        trace_id=int(trace.trace_id, 16), span_id=int(trace.parent_id, 16), is_remote=True, trace_flags=TraceFlags(1)
    )
    return set_span_in_context(NonRecordingSpan(context))


def _nanoseconds(moment: float) -> int:
    return int(to_wall_clock(moment) * 1e9)
