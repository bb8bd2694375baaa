"""Faults 23 to 25: a full disk, nothing to write to, another user, process 1, a clock that jumps, no files left, logs
that nobody reads. It serves all the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.odd_servers import Oddity, OddServer, odd_server
from tests.faults.standing import HEALTH_SECONDS, check_health, own_body, scores_of
from tests.faults.wire import connected, read_one, request
from tests.service.exact_models import exact_instances, exact_model, expected_bits, write_exact_bundle

MODEL = exact_model()
INSTANCE = exact_instances(MODEL, 1)[0]
BODY = own_body(INSTANCE)
NOBODY = 65534
is_root = os.geteuid() == 0


@pytest.fixture(scope="module")
def models() -> Any:
    """A folder that every user can read, with one bundle."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "models")
        write_exact_bundle(root, MODEL)
        for path in (Path(directory), *Path(directory).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield str(root)


def check_serves(server: OddServer) -> None:
    check_health(server.url)
    for _ in range(5):
        answer = httpx.post(f"{server.url}/predict", content=BODY, timeout=30)
        assert answer.status_code == 200, answer.text
        assert scores_of(answer.json()) == expected_bits(MODEL, INSTANCE[None])
    assert "Traceback" not in server.complaints()


# --- 23: nowhere to write --------------------------------------------------------------------------------------------


def test_fault_23_with_a_full_disk_behind_stdout_it_serves(models: str) -> None:
    with Path("/dev/full").open("wb") as full, odd_server(Oddity(stdout=full), "--models", models) as server:
        check_serves(server)


def test_fault_23_with_stdout_closed_by_its_reader_it_serves(models: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with odd_server(Oddity(stdout=writer), "--models", models) as server:
            check_serves(server)
    finally:
        os.close(writer)


NOWHERE = {"TMPDIR": "/nonexistent", "HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}


def test_fault_23_without_a_home_it_serves(models: str) -> None:
    with odd_server(Oddity(environment=NOWHERE), "--models", models) as server:
        check_serves(server)


@pytest.mark.skipif(not is_root, reason="only root can become somebody else")
def test_fault_23_as_a_user_who_may_write_nowhere_it_serves(models: str) -> None:
    """It may read all, for the interpreter may lie in root's home."""
    somebody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    around = _within(*somebody, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    with odd_server(Oddity(around=around, environment=NOWHERE), "--models", models) as server:
        check_serves(server)


def _within(*command: str) -> list[str]:
    """What runs a program in other circumstances, where that is allowed."""
    if shutil.which(command[0]) is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip(f"{command[0]} is not allowed here, or not there")
    return list(command)


READ_ONLY = 'mount -o remount,ro,bind / / 2>/dev/null || mount --bind -o ro / /; exec "$@"'


@pytest.mark.skipif(not is_root, reason="only root can mount")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_fault_23_on_a_file_system_that_can_only_be_read_it_serves(models: str, workers: str) -> None:
    around = [*_within("unshare", "--mount"), "sh", "-c", READ_ONLY, "sh"]
    # Several put their metrics together in a folder: one in memory will do.
    environment = {} if workers == "1" else {"TMPDIR": "/dev/shm"}  # noqa: S108
    with odd_server(Oddity(around=around, environment=environment), "--models", models, "--workers", workers) as server:
        check_serves(server)


@pytest.mark.skipif(not is_root, reason="only root can be process 1")
def test_fault_23_as_process_1_it_serves_and_ends_on_sigterm(models: str) -> None:
    around = _within("unshare", "--pid", "--fork", "--kill-child")
    with odd_server(Oddity(around=around, forks=True), "--models", models, "--workers", "2") as server:
        check_serves(server)


# --- 24: the clock, and files ----------------------------------------------------------------------------------------


def test_fault_24_a_clock_that_jumps_by_years_changes_nothing(models: str) -> None:
    limits = ("--receive-seconds", "2", "--header-seconds", "1", "--watch-seconds", "0.1")
    oddity = Oddity(module="tests.faults.jumping_clock")
    with odd_server(oddity, "--models", models, *limits) as server, connected(server.url) as connection:
        for _ in range(4):
            connection.sendall(request("/predict", BODY, "x-request-timeout: 5"))
            assert read_one(connection).status == 200
            time.sleep(0.5)
        check_serves(server)
        text = httpx.get(f"{server.url}/metrics").text
        totals = [line for line in text.splitlines() if line.startswith("foldserve_request_seconds_sum")]
        assert all(0 <= float(line.rsplit(" ", 1)[1]) < 60 for line in totals)
        connection.sendall(request("/predict", BODY))
        assert read_one(connection).status == 200


MAX_FILES = 100


def test_fault_24_when_no_files_are_left_it_waits_and_accepts_again(models: str) -> None:
    with odd_server(Oddity(max_files=MAX_FILES), "--models", models, "--header-seconds", "2") as server:
        with ExitStack() as stack:
            kept = stack.enter_context(connected(server.url))
            kept.sendall(request("/predict", BODY))
            assert read_one(kept).status == 200
            for _ in range(2 * MAX_FILES):
                with suppress(OSError):
                    stack.enter_context(connected(server.url))
            kept.sendall(request("/predict", BODY))
            reply = read_one(kept)
            assert reply.status == 200
            assert reply.seconds < HEALTH_SECONDS
        _wait_for_health(server)
        check_serves(server)
        assert len(server.complaints()) < 10_000


def _wait_for_health(server: OddServer) -> None:
    until = time.perf_counter() + 10
    while time.perf_counter() < until:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{server.url}/health/ready", timeout=1).status_code == 200:
                return
    raise AssertionError("it does not accept again")


# --- 25: logs and metrics that hold up --------------------------------------------------------------------------------

END_SECONDS = 10  # a log that nobody reads is not waited for
NUM_LOGGED = 12_000  # lines: more than a pipe holds, and more than are kept for it


def test_fault_25_logs_that_nobody_reads_hold_up_nobody(models: str) -> None:
    reader, writer = os.pipe()
    oddity = Oddity(stdout=writer, stderr=writer)
    try:
        with odd_server(oddity, "--models", models, "--log", "json", "--log-sample", "1") as server:
            with connected(server.url) as connection:
                for _ in range(NUM_LOGGED):
                    connection.sendall(request("/predict", BODY))
                    reply = read_one(connection)
                    assert reply.status == 200
                    assert reply.seconds < HEALTH_SECONDS
            check_serves(server)
            server.process.terminate()
            assert server.process.wait(timeout=END_SECONDS) == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_fault_25_metrics_that_are_asked_for_all_the_time_hold_up_nobody(models: str) -> None:
    with odd_server(Oddity(), "--models", models) as server, ExitStack() as stack:
        scrapers = [stack.enter_context(connected(server.url)) for _ in range(4)]
        for scraper in scrapers:
            scraper.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 50)
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for _ in range(20):
                started = time.perf_counter()
                assert client.post("/predict", content=BODY).status_code == 200
                assert time.perf_counter() - started < HEALTH_SECONDS
        check_serves(server)


def test_fault_25_a_trace_collector_that_is_down_holds_up_nobody(models: str) -> None:
    pytest.importorskip("opentelemetry.sdk")
    nobody = "http://127.0.0.1:9/v1/traces"  # the discard port, where nobody listens
    with odd_server(Oddity(), "--models", models, "--traces", nobody, "--trace-sample", "1") as server:
        headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        with httpx.Client(base_url=server.url, timeout=10, headers=headers) as client:
            started = time.perf_counter()
            assert {client.post("/predict", content=BODY).status_code for _ in range(1000)} == {200}
            assert time.perf_counter() - started < 1000 * 5e-3
        started = time.perf_counter()
        server.process.terminate()
        assert server.process.wait(timeout=30) == 0
        assert time.perf_counter() - started < END_SECONDS
        assert "Traceback" not in server.complaints()
