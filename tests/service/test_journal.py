"""What is said of single requests: which, what, and that saying it never holds anything up."""

from __future__ import annotations

import http.server
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import SettingsInvalid
from service.journal.access import MAX_FAILURES_A_SECOND, MAX_REFUSALS_A_SECOND, AccessLog
from service.journal.entry import Entry, to_wall_clock
from service.journal.lines import Lines
from service.journal.records import LinesHandler, tell_dropped
from service.journal.spans import Spans, open_spans
from service.journal.traceparent import read_traceparent
from service.protocols.answer import Times
from service.protocols.contract import Headers
from service.request_ids import name_request
from tests.service.running_server import running_server, wait_until
from tests.service.tiny_models import tiny_model, write_tiny_bundle

BODY = b'{"instance":[1,2,3,4]}'
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def make_entry(status: int = 200, **headers: bytes) -> Entry:
    arrived = time.perf_counter() - 0.010
    times = Times(arrived + 0.001, arrived + 0.003, arrived + 0.006, arrived + 0.010)
    return Entry("own", "digits", "3", status, "", 120, Headers(**headers), b"id-1", arrived, arrived + 0.010, times)


class Pipe:
    """A pipe that is read when the test wants it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def read(self, until: bytes) -> list[Any]:
        """Read JSON lines until one has this text."""
        content = b""
        while not re.search(until + rb"[^\n]*\n", content):
            content += os.read(self.reader, 65536)
        return [json.loads(line) for line in content.splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    os.close(pipe.writer)


@pytest.fixture
def lines(pipe: Pipe) -> Iterator[Lines]:
    lines = Lines(pipe.writer, partial(tell_dropped, "json"), max_waiting=100)
    yield lines
    lines.close()


# --- names -----------------------------------------------------------------------------------------------------------


@given(given=st.binary(max_size=200))
def test_a_request_keeps_its_name_if_it_can_stand_in_a_header_and_a_log(given: bytes) -> None:
    name = name_request(given)
    assert 1 <= len(name) <= 128
    assert re.fullmatch(rb"[!-~]+", name)
    assert name == given or name != name_request(given)


def test_new_names_are_all_different() -> None:
    assert len({name_request(b"") for _ in range(10_000)}) == 10_000


# --- traceparent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "sampled"),
    [(PARENT, True), (PARENT[:-1] + "0", False), (f"cc-{PARENT[3:]}-more", True), (f" {PARENT} ", True)],
)
def test_a_trace_is_read_as_its_standard_says(header: str, sampled: bool) -> None:
    trace = read_traceparent(header.encode())
    assert trace is not None
    assert (trace.trace_id, trace.parent_id, trace.is_sampled) == (TRACE, "b7ad6b7169203331", sampled)


@pytest.mark.parametrize(
    "header",
    ["", "00", PARENT.upper(), f"{PARENT}-more", f"ff-{PARENT[3:]}", f"00-{'0' * 32}-b7ad6b7169203331-01",
     f"00-{TRACE}-{'0' * 16}-01", PARENT.replace("-", ""), PARENT + "\n00", "é"],
)  # fmt: skip
def test_what_is_no_trace_is_none(header: str) -> None:
    assert read_traceparent(header.encode()) is None


# --- the access log --------------------------------------------------------------------------------------------------


def test_one_in_so_many_gets_a_line(lines: Lines) -> None:
    log = AccessLog(lines, 0.1, "json")
    assert [log.is_wanted(200, b"") for _ in range(40)] == ([False] * 9 + [True]) * 4
    silent = AccessLog(lines, 0.0, "json")
    assert not any(silent.is_wanted(200, PARENT.encode()) for _ in range(100))


def test_who_records_a_trace_gets_a_line_for_it(lines: Lines) -> None:
    log = AccessLog(lines, 0.001, "json")
    assert [log.is_wanted(200, header) for header in (PARENT.encode(), PARENT[:-1].encode() + b"0", b"junk")] == [
        True,
        False,
        False,
    ]


def test_failures_always_get_one_but_no_more_than_so_many_a_second(pipe: Pipe, lines: Lines) -> None:
    log = AccessLog(lines, 0.0, "json")
    assert sum(log.is_wanted(422, b"") for _ in range(1000)) in {MAX_REFUSALS_A_SECOND, 2 * MAX_REFUSALS_A_SECOND}
    assert sum(log.is_wanted(503, b"") for _ in range(1000)) in {MAX_FAILURES_A_SECOND, 2 * MAX_FAILURES_A_SECOND}
    log.write(make_entry(503))
    log.write(make_entry(503))
    first, second = pipe.read(b'"answer_bytes":120,"duration_ms"[^\n]*\n[^\n]*duration_ms')
    assert first["left_out"] >= 2000 - 2 * (MAX_REFUSALS_A_SECOND + MAX_FAILURES_A_SECOND)
    assert "left_out" not in second


def test_a_line_says_what_request_it_was_and_how_it_went(pipe: Pipe, lines: Lines) -> None:
    AccessLog(lines, 1.0, "json").write(make_entry(traceparent=PARENT.encode()))
    (line,) = pipe.read(b"encode_ms")
    assert abs(time.time() - _seconds(line.pop("time"))) < 10
    assert line == {
        "level": "info", "event": "request", "request_id": "id-1", "trace_id": TRACE, "protocol": "own",
        "model": "digits", "version": "3", "status": 200, "answer_bytes": 120, "duration_ms": 10.0,
        "parse_ms": 1.0, "queue_ms": 2.0, "infer_ms": 3.0, "encode_ms": 4.0,
    }  # fmt: skip


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def test_a_clock_that_jumps_changes_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = make_entry()
    before = to_wall_clock(entry.answered) - to_wall_clock(entry.arrived)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert to_wall_clock(entry.answered) - to_wall_clock(entry.arrived) == pytest.approx(before, abs=1e-3)


# --- nothing is held up ----------------------------------------------------------------------------------------------


def test_a_pipe_that_nobody_reads_costs_lines_and_no_time(pipe: Pipe, lines: Lines) -> None:
    log = AccessLog(lines, 1.0, "json")
    begin = time.perf_counter()
    for _ in range(100_000):
        log.write(make_entry())
    assert time.perf_counter() - begin < 30  # it would take for ever
    assert lines.num_dropped > 90_000
    told = [line["message"] for line in pipe.read(b"dropped") if line["event"] == "log"]
    assert re.search(r"^\d+ log lines were dropped: nobody read them in time", told[0])


def test_a_process_whose_log_nobody_reads_ends(tmp_path: Path) -> None:
    program = """
import os, sys
from functools import partial
from service.journal.lines import Lines
from service.journal.records import tell_dropped
lines = Lines(sys.stderr.fileno(), partial(tell_dropped, "json"))
for _ in range(5000):
    lines.put(lambda: b"x" * 1000)
lines.close()
os.write(1, b"done")
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(timeout=30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b"done"


def test_who_reads_no_more_is_written_to_no_more() -> None:
    reader, writer = os.pipe()
    lines = Lines(writer, partial(tell_dropped, "json"))
    os.close(reader)
    lines.put(lambda: b"x\n")
    lines.close()
    os.close(writer)


def test_what_the_rooms_say_becomes_lines_with_their_tracebacks(pipe: Pipe, lines: Lines) -> None:
    logger = logging.getLogger("tests.journal")
    handler = LinesHandler(lines, "json")
    logger.addHandler(handler)
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logger.exception("it failed for %s", "digits")
    finally:
        logger.removeHandler(handler)
    (line,) = pipe.read(b"exception")
    assert (line["level"], line["message"], line["logger"]) == ("error", "it failed for digits", "tests.journal")
    assert "ZeroDivisionError: " in line["exception"]


# --- traces ----------------------------------------------------------------------------------------------------------


class Collector:
    """A collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

                request = ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Be quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_a_request_is_a_span_of_its_callers_trace_with_its_stages(collector: Collector) -> None:
    spans = open_spans(collector.url, 1.0)
    spans.record(make_entry(traceparent=PARENT.encode()))
    spans.close()
    by_name = {span.name: span for span in collector.spans}
    assert by_name.keys() == {"POST own", "parse", "queue", "infer", "encode"}
    request = by_name["POST own"]
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert {by_name[stage].parent_span_id for stage in ("parse", "encode")} == {request.span_id}
    assert request.end_time_unix_nano - request.start_time_unix_nano == pytest.approx(10e6, rel=0.2)
    assert by_name["infer"].end_time_unix_nano - by_name["infer"].start_time_unix_nano == pytest.approx(3e6, rel=0.3)


def test_the_caller_decides_and_else_the_dice_do(collector: Collector) -> None:
    spans = open_spans(collector.url, 0.0)
    assert spans.is_wanted(PARENT.encode())
    assert not spans.is_wanted(b"")
    spans._sample = 1.0
    assert not spans.is_wanted(PARENT[:-1].encode() + b"0")
    assert spans.is_wanted(b"junk")
    spans.close()


def record_and_close(spans: Spans) -> tuple[float, float]:
    begin = time.perf_counter()
    for _ in range(3000):
        spans.record(make_entry())
    recorded = time.perf_counter()
    spans.close()
    return recorded - begin, time.perf_counter() - recorded


@pytest.mark.parametrize("kind", ["refuses", "never answers"])
def test_a_collector_that_is_dead_holds_up_nothing(kind: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "never answers":
            listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces"
        recording, closing = record_and_close(open_spans(url, 1.0))
    assert recording < 5  # 3,000 requests that wait for a timeout would take hours
    assert closing < 15


# --- a server --------------------------------------------------------------------------------------------------------


def test_a_server_writes_json_lines_and_names_what_it_answers(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    arguments = ("--models", str(tmp_path), "--device", "cpu", "--log", "json", "--log-sample", "1")
    with running_server(*arguments) as server:
        with server.client() as client:
            good = client.post("/predict", content=BODY, headers={"x-request-id": "mine", "traceparent": PARENT})
            bad = client.post("/predict", content=b"{")
        wait_until(lambda: len(server.err) >= 2)
        first, second = (json.loads(line) for line in server.err[-2:])
    assert good.headers["x-request-id"] == "mine"
    assert re.fullmatch(
        r"parse;dur=[\d.]+, queue;dur=[\d.]+, infer;dur=[\d.]+, encode;dur=[\d.]+", good.headers["server-timing"]
    )
    assert (first["request_id"], first["trace_id"], first["status"], first["model"]) == ("mine", TRACE, 200, "digits")
    assert (second["request_id"], second["status"]) == (bad.headers["x-request-id"], 400)
    assert second["reason"] == "body_malformed"


def test_a_server_sends_traces(tmp_path: Path, collector: Collector) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    with running_server("--models", str(tmp_path), "--device", "cpu", "--traces", collector.url) as server:
        with server.client() as client:
            client.post("/predict", content=BODY, headers={"traceparent": PARENT})
        server.process.terminate()
        server.process.wait(30)
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}


def test_a_server_whose_log_nobody_reads_serves_and_ends(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    reader, writer = os.pipe()
    words = ["--models", str(tmp_path), "--device", "cpu", "--log", "json", "--log-sample", "1", "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "service", *words], stdout=subprocess.PIPE, stderr=writer, text=True
    ) as process:
        os.close(writer)
        assert process.stdout is not None
        url = next(found[1] for line in process.stdout if (found := re.search(r"listening on (\S+),", line)))
        import httpx

        with httpx.Client(base_url=url, timeout=10) as client:
            for _ in range(2000):  # of some 300 bytes each: several times what a pipe holds
                assert client.post("/predict", content=BODY).status_code == 200
        process.terminate()
        assert process.wait(timeout=30) == 0
    os.close(reader)


def test_traces_without_their_packages_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsInvalid, match=r"foldserve\[otel\]"):
        open_spans("http://localhost:1", 1.0)
