"""The journal of a real server: its log lines, its traces, and that neither ever holds it up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.running_server import running_server, wait_until
from tests.service.tiny_models import tiny_model, write_tiny_bundle
from tests.service.trace_collector import Collector, running

BODY = b'{"instance":[1,2,3,4]}'
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running(Collector()) as found:
        yield found


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
    with running_server("--models", str(tmp_path), "--device", "cpu", "--traces", collector.address) as server:
        with server.client() as client:
            client.post("/predict", content=BODY, headers={"traceparent": PARENT})
        server.process.terminate()
        server.process.wait(30)
    assert {span.trace_id.hex() for span in collector.spans()} == {TRACE}


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
