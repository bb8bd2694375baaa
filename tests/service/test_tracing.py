"""Traces: what a real collector is sent of a request, and that one which is slow or dead delays nobody."""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.entries import Entry
from service.errors import SettingsInvalid
from service.protocols.answer import Times
from service.trace_context import TraceContext
from service.tracing import CLOSE_SECONDS, Tracing, open_tracing
from tests.service.trace_collector import SERVER, Collector, running

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KEPT = TraceContext(TRACE, PARENT, is_sampled=True)
NOT_KEPT = KEPT._replace(is_sampled=False)
ERROR = 2  # OTLP's number for a status
ENOUGH = 10**6
PATIENCE_SECONDS = 10.0
# What `perf_counter`, a float of seconds, can tell apart some days after the start of the machine.
ROUNDING_NS = 1000


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running(Collector()) as found:
        yield found


@pytest.fixture
def dead_address() -> str:
    """Nobody listens there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Somebody takes connections there, and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def tracing_to(address: str, *, sample: float = 1.0, per_second: int = ENOUGH) -> Iterator[Tracing]:
    tracing = open_tracing(address, sample=sample, per_second=per_second)
    assert tracing is not None
    try:
        yield tracing
    finally:
        tracing.close(PATIENCE_SECONDS)


def entry(status: int = 200, *, trace: TraceContext | None = None, **more: Any) -> Entry:
    """A request that took 4 ms, just now."""
    at = time.perf_counter() - 0.004
    times = Times(at + 0.0005, at + 0.0015, at + 0.0035, at + 0.00375)
    usual: dict[str, Any] = {"times": times, "model": "digits", "version": "3", "protocol": "predict"}
    more = {**usual, "method": "POST", "path": "/predict", "bytes_in": 512, **more}
    return Entry(b"name-1", status, at, at + 0.004, trace=trace, **more)


def attributes(item: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes}


def send(collector: Collector, *entries: Entry, sample: float = 1.0) -> list[Any]:
    with tracing_to(collector.address, sample=sample) as tracing:
        for one in entries:
            tracing.record(one)
    return collector.spans()


def test_a_request_is_one_span_of_a_server_with_its_stages_below(collector: Collector) -> None:
    before = time.time_ns()
    one = entry()
    span, *stages = send(collector, one)
    assert (span.name, span.kind, span.parent_span_id) == ("POST /predict", SERVER, b"")
    assert attributes(span) == {
        "http.request.method": "POST",
        "url.path": "/predict",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "http.request.body.size": 512,
        "foldserve.request_id": "name-1",
        "foldserve.model": "digits",
        "foldserve.version": "3",
        "foldserve.protocol": "predict",
    }
    assert span.end_time_unix_nano - span.start_time_unix_nano == pytest.approx(4e6, abs=ROUNDING_NS)
    assert abs(span.end_time_unix_nano - before) < 10**9  # clocks read one after the other, on a busy machine
    assert {stage.name: stage.end_time_unix_nano - stage.start_time_unix_nano for stage in stages} == {
        "parse": pytest.approx(0.5e6, abs=ROUNDING_NS),
        "queue": pytest.approx(1e6, abs=ROUNDING_NS),
        "infer": pytest.approx(2e6, abs=ROUNDING_NS),
        "encode": pytest.approx(0.25e6, abs=ROUNDING_NS),
    }
    assert {(stage.trace_id, stage.parent_span_id) for stage in stages} == {(span.trace_id, span.span_id)}


def test_the_service_is_foldserve(collector: Collector) -> None:
    send(collector, entry())
    resource = attributes(collector.requests[0].resource_spans[0].resource)
    assert resource["service.name"] == "foldserve"


def test_it_belongs_to_the_trace_of_its_caller(collector: Collector) -> None:
    span = send(collector, entry(trace=KEPT))[0]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)


def test_without_a_caller_each_request_is_a_trace_of_its_own(collector: Collector) -> None:
    first, second = [span for span in send(collector, entry(), entry()) if span.kind == SERVER]
    assert first.trace_id != second.trace_id


def test_whether_a_trace_is_kept_is_for_its_caller_to_say(collector: Collector) -> None:
    entries = [entry(trace=trace, path=f"/{number}") for number, trace in enumerate((NOT_KEPT, KEPT, NOT_KEPT))]
    assert {attributes(span)["url.path"] for span in send(collector, *entries, sample=0.0) if span.kind == SERVER} == {
        "/1"
    }
    assert len([span for span in collector.spans() if span.kind == SERVER]) == 1


def test_of_the_others_a_share_is_traced(collector: Collector) -> None:
    entries = [entry(times=None, path=f"/{number}") for number in range(20)]
    spans = send(collector, *entries, sample=0.1)
    assert [attributes(span)["url.path"] for span in spans] == ["/0", "/10"]


def test_what_is_traced_is_not_for_the_environment_to_say(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert send(collector, entry())


def test_a_failure_is_an_error_and_a_refusal_is_none(collector: Collector) -> None:
    sent = send(
        collector,
        entry(503, reason="not_ready", times=None),
        entry(422, reason="instance_invalid", times=None),
    )
    failed, refused = sent
    assert (failed.status.code, attributes(failed)["error.type"]) == (ERROR, "not_ready")
    assert (refused.status.code, "error.type" in attributes(refused)) == (0, False)
    assert attributes(refused)["foldserve.reason"] == "instance_invalid"


def test_a_path_that_leads_to_no_model_does_not_name_a_span(collector: Collector) -> None:
    span = send(collector, entry(404, model="", version=None, times=None, path="/wp-login.php"))[0]
    assert span.name == "POST"


def test_grpc_is_named_as_grpc(collector: Collector) -> None:
    span = send(collector, entry(method="", path="/inference.GRPCInferenceService/ModelInfer", times=None))[0]
    assert span.name == "inference.GRPCInferenceService/ModelInfer"
    found = attributes(span)
    assert (found["rpc.system"], found["rpc.service"], found["rpc.method"]) == (
        "grpc",
        "inference.GRPCInferenceService",
        "ModelInfer",
    )
    assert not any(name.startswith("http.") for name in found)


def test_there_is_a_limit_of_traces_a_second(collector: Collector) -> None:
    one = entry()
    with tracing_to(collector.address, per_second=5) as tracing:
        for _ in range(20):
            tracing.record(one)
        assert tracing.num_lost == 15


@pytest.mark.parametrize("address", ["dead_address", "silent_address"])
def test_a_dead_collector_delays_nobody_and_is_complained_of_once(
    address: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    one = entry()
    tracing = open_tracing(request.getfixturevalue(address), sample=1.0, per_second=ENOUGH)
    assert tracing is not None
    begin = time.perf_counter()
    for _ in range(20_000):
        tracing.record(one)
    # Each takes about a microsecond; one that waited for the collector would take two seconds.
    assert time.perf_counter() - begin < 2.0
    _until(lambda: bool(caplog.records))
    begin = time.perf_counter()
    tracing.close()
    assert time.perf_counter() - begin < CLOSE_SECONDS + 0.5
    assert tracing.num_lost > 17_000
    [said] = caplog.messages
    assert "predictions go on" in said
    _until_idle(tracing)


def test_why_a_collector_takes_nothing_is_said(dead_address: str, caplog: pytest.LogCaptureFixture) -> None:
    with tracing_to(dead_address) as tracing:
        tracing.record(entry())
    [said] = caplog.messages
    assert "Connection refused" in said
    assert len(said) < 600


def test_once_the_collector_is_back_traces_get_there_again(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    with tracing_to(collector.address) as tracing:
        tracing.record(entry())
        _until(lambda: tracing.num_lost == 1)
        collector.status = 200
        tracing.record(entry())
    assert len([span for span in collector.spans() if span.kind == SERVER]) == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "again; 1 were lost" in caplog.messages[1]


def test_no_address_is_no_tracing() -> None:
    assert open_tracing("", sample=1.0) is None


@pytest.mark.parametrize("address", ["localhost:4318", "ftp://collector", "http://", "http://a:99999", "http://[x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingsInvalid, match="expected an address such as http://localhost:4318") as refused:
        open_tracing(address, sample=1.0)
    assert repr(address) in str(refused.value)


def test_where_opentelemetry_is_missing_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsInvalid, match=r"pip install 'foldserve\[otel\]'"):
        open_tracing("http://localhost:4318", sample=1.0)


def _until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not is_so() and time.monotonic() < until:
        time.sleep(0.005)
    assert is_so()


def _until_idle(tracing: Tracing) -> None:
    """Let the thread come to its end, and OpenTelemetry's logger be as it was."""
    tracing._backlog._thread.join(PATIENCE_SECONDS)
    tracing._sender._said.give_back()
