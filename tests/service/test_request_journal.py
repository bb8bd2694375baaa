"""The journal of a real server: its log lines, its traces, and that neither ever holds it up."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.running_server import running_server, wait_until
from tests.service.tiny_models import tiny_model, write_tiny_bundle

BODY = b'{"instance":[1,2,3,4]}'
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


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
        with httpx.Client(base_url=url, timeout=10) as client:
            for _ in range(2000):  # of some 300 bytes each: several times what a pipe holds
                assert client.post("/predict", content=BODY).status_code == 200
        process.terminate()
        assert process.wait(timeout=30) == 0
    os.close(reader)
