"""Logs: what a line says, which lines there are, and that nobody waits for them, not even for a pipe nobody reads."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.backlog import Backlog, Bounds
from service.entries import MAX_PATH, Entry
from service.logs.access import AccessLog
from service.logs.formats import Line, line_writer
from service.logs.line_file import LineFile
from service.logs.opening import logging_to
from service.logs.records import RecordHandler
from service.logs.remarks import Remark
from service.protocols.answer import Times
from service.sampling import Budget, Share
from service.trace_context import TraceContext
from service.wall_clock import REFRESH_SECONDS, WallClock

KEPT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", is_sampled=True)
NOT_KEPT = KEPT._replace(is_sampled=False)
SMALL = Bounds(waiting=100, at_once=4, gather_seconds=0.001)
# Well above what 100,000 calls of some µs take on a busy machine; far below what one that waits for a pipe would.
UNBLOCKED_SECONDS = 10.0


def entry(status: int = 200, *, at: float = 1000.0, **more: Any) -> Entry:
    """A request that took 4 ms: parse 0.5, queue 1, infer 2, encode 0.25."""
    times = Times(at + 0.0005, at + 0.0015, at + 0.0035, at + 0.00375)
    usual: dict[str, Any] = {"times": times, "model": "digits", "version": "3", "protocol": "predict"}
    return Entry(b"name-1", status, at, at + 0.004, **{**usual, "method": "POST", "path": "/predict", **more})


def as_json(line: Line) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line_writer("json")(line))
    return found


def as_text(line: Line) -> str:
    return line_writer("text")(line).decode("ascii")


@dataclass
class Kept:
    """A file that keeps its lines."""

    lines: list[Line] = field(default_factory=list)

    def put(self, line: Line) -> None:
        self.lines.append(line)


def access_log(kept: Kept, *, sample: float, per_second: int = 10**6) -> AccessLog:
    return AccessLog(kept, sample=sample, per_second=per_second)  # type: ignore[arg-type]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A real pipe, of 64 KiB as a rule."""
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def read_lines(descriptor: int) -> list[dict[str, Any]]:
    """Read to the end: whoever writes has to close."""
    with open(descriptor, "rb", closefd=False) as file:
        return [json.loads(line) for line in file.read().splitlines()]


# --- what a line says ------------------------------------------------------------------------------------------------


def test_a_line_says_what_was_asked_what_came_of_it_and_how_long_each_stage_took() -> None:
    line = as_json(entry(422, reason="instance_invalid", bytes_in=512, trace=KEPT))
    datetime.fromisoformat(line.pop("ts"))
    assert line == {
        "level": "info",
        "event": "request",
        "method": "POST",
        "path": "/predict",
        "status": 422,
        "reason": "instance_invalid",
        "duration_ms": 4.0,
        "model": "digits",
        "version": "3",
        "protocol": "predict",
        "request_id": "name-1",
        "trace_id": KEPT.trace_id,
        "bytes_in": 512,
        "parse_ms": 0.5,
        "queue_ms": 1.0,
        "infer_ms": 2.0,
        "encode_ms": 0.25,
    }


def test_what_there_is_nothing_to_say_of_is_left_out() -> None:
    bare = Entry(b"name-1", 404, 1.0, 1.001)
    assert set(as_json(bare)) == {"ts", "level", "event", "status", "duration_ms", "request_id"}


def test_the_client_is_named_only_where_somebody_says_who_it_is() -> None:
    assert "client" not in as_json(entry())
    assert as_json(entry(client="192.0.2.7"))["client"] == "192.0.2.7"


def test_failures_are_errors_and_nothing_else_is() -> None:
    assert {status: as_json(entry(status))["level"] for status in (200, 404, 429, 500, 503)} == {
        200: "info",
        404: "info",
        429: "info",
        500: "error",
        503: "error",
    }


def test_the_time_is_the_answers_in_utc_to_the_microsecond() -> None:
    line = as_json(entry(at=time.perf_counter() - 0.004))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["ts"])
    # The two clocks are read one after the other: a busy machine may well put a second between them.
    assert abs((datetime.now(UTC) - datetime.fromisoformat(line["ts"])).total_seconds()) < 1.0


def test_times_of_day_are_written_right(monkeypatch: pytest.MonkeyPatch) -> None:
    at = datetime(2028, 2, 29, 23, 59, 59, 7, tzinfo=UTC)
    nanoseconds = int(at.timestamp()) * 10**9 + 7_999
    remark = Remark(nanoseconds, "info", "log", "x")
    assert as_json(remark)["ts"] == "2028-02-29T23:59:59.000007Z"
    assert as_json(remark._replace(at=nanoseconds + 10**9))["ts"] == "2028-03-01T00:00:00.000007Z"


@given(st.text(max_size=300), st.sampled_from(["json", "text"]))
def test_whatever_a_client_sends_makes_one_line_of_plain_characters(path: str, form: str) -> None:
    line = line_writer(form)(entry(path=path).bounded())
    assert line.endswith(b"\n")
    assert all(0x20 <= byte <= 0x7E for byte in line[:-1])
    if form == "json":
        assert json.loads(line).get("path", "") == path[:MAX_PATH]


def test_half_a_character_and_an_escape_sequence_are_written_too() -> None:
    assert as_json(entry(path="/\udc80\x1b[2J"))["path"] == "/\udc80\x1b[2J"
    assert "\x1b" not in as_text(entry(path="/\udc80\x1b[2J"))


def test_text_is_short_and_for_people() -> None:
    line = as_text(entry(503, reason="not_ready"))
    assert re.fullmatch(
        r"\S+Z error POST /predict 503 4\.000 ms reason=not_ready model=digits version=3 protocol=predict "
        r"request_id=name-1 parse_ms=0\.5 queue_ms=1\.0 infer_ms=2\.0 encode_ms=0\.25\n",
        line,
    )


# --- which lines there are -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_in", [1, 2, 3, 7, 100, 1000])
def test_of_many_each_nth_is_chosen_and_the_first(one_in: int) -> None:
    share = Share(1 / one_in)
    chosen = [place for place in range(10 * one_in) if share.chooses()]
    assert chosen == list(range(0, 10 * one_in, one_in))


@given(st.floats(0.0, 1.0))
def test_a_share_is_kept_to_over_any_stretch(share: float) -> None:
    chooser = Share(share)
    num_chosen = sum(chooser.chooses() for _ in range(500))
    # One more, for the first; the share is rounded up by less than 2**-32, 500 times.
    assert abs(num_chosen - 500 * Fraction(share)) <= 1 + Fraction(500, 2**32)


def test_a_share_of_nothing_chooses_nothing() -> None:
    share = Share(0.0)
    assert not any(share.chooses() for _ in range(1000))


def test_failures_are_always_logged() -> None:
    kept = Kept()
    log = access_log(kept, sample=0.0)
    for status in (500, 503, 504, 507) * 5:
        log.record(entry(status))
    assert len(kept.lines) == 20


def test_a_kept_trace_has_its_line_unless_nothing_is_to_be_logged() -> None:
    kept = Kept()
    log = access_log(kept, sample=0.001)
    log.record(entry())  # the first of the share
    for trace in (KEPT, NOT_KEPT, None):
        log.record(entry(trace=trace))
    access_log(kept, sample=0.0).record(entry(trace=KEPT))
    assert [line.trace for line in kept.lines if isinstance(line, Entry)] == [None, KEPT]


def test_of_refusals_there_is_one_a_second_at_least() -> None:
    kept = Kept()
    log = access_log(kept, sample=0.0)
    for tenth in range(35):
        log.record(entry(400, at=1000.0 + tenth / 10))
        log.record(entry(200, at=1000.0 + tenth / 10))
    moments = [line.arrived for line in kept.lines if isinstance(line, Entry)]
    assert moments == pytest.approx([1000.0, 1001.0, 1002.0, 1003.0])


def test_there_is_a_limit_of_lines_a_second_and_what_is_left_out_is_counted_and_said() -> None:
    kept = Kept()
    log = access_log(kept, sample=1.0, per_second=10)
    for _ in range(25):
        log.record(entry(404))
    log.record(entry(500))
    assert (len(kept.lines), log.num_left_out) == (11, 15)
    log.record(entry(at=1001.5))
    said, line = (as_json(line) for line in kept.lines[-2:])
    assert (said["event"], said["lines"], said["level"]) == ("lines_left_out", 15, "warning")
    assert line["status"] == 200
    log.record(entry(at=1001.6))
    assert len(kept.lines) == 14


def test_a_budget_is_full_again_each_second() -> None:
    budget = Budget(3)
    passed = [second for second in range(4) for _ in range(5) if budget.admits(50.0 + 1.1 * second)]
    assert passed == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert budget.num_refused == 8


def test_of_a_long_path_no_more_is_kept_in_memory_than_is_written() -> None:
    kept = Kept()
    access_log(kept, sample=1.0).record(entry(path="/" + "x" * 60_000))
    assert [len(line.path) for line in kept.lines if isinstance(line, Entry)] == [MAX_PATH]


# --- nobody waits ----------------------------------------------------------------------------------------------------


def test_a_pipe_that_nobody_reads_stops_nobody_and_what_is_lost_is_said(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    file = LineFile(writer, line_writer("json"), Bounds(waiting=1000, at_once=4, gather_seconds=0.001))
    log = AccessLog(file, sample=1.0, per_second=10**6)
    begin = time.perf_counter()
    for number in range(100_000):
        log.record(entry(bytes_in=number))
    assert time.perf_counter() - begin < UNBLOCKED_SECONDS
    assert file.num_dropped > 90_000

    lines: list[dict[str, Any]] = []
    draining = threading.Thread(target=lambda: lines.extend(read_lines(reader)))
    draining.start()
    assert file.close(seconds=UNBLOCKED_SECONDS)
    os.close(writer)
    draining.join(UNBLOCKED_SECONDS)

    numbers = [line["bytes_in"] for line in lines if line["event"] == "request"]
    assert numbers == sorted(set(numbers))
    # Some 220 lines fill the pipe, then comes the queue of 1000: it is half empty before what is lost is said.
    assert [line["event"] for line in lines].index("lines_dropped") > 500
    assert sum(line["lines"] for line in lines if line["event"] == "lines_dropped") == file.num_dropped
    assert len(numbers) + file.num_dropped == 100_000


def test_once_there_is_room_lines_come_again(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    file = LineFile(writer, line_writer("json"), SMALL)
    for _ in range(5000):
        file.put(entry())
    lines: list[dict[str, Any]] = []
    draining = threading.Thread(target=lambda: lines.extend(read_lines(reader)))
    draining.start()
    _until(file._backlog._waiting.empty)
    file.put(entry(status=201))
    file.close()
    os.close(writer)
    draining.join(UNBLOCKED_SECONDS)
    assert [line["status"] for line in lines if line["event"] == "request"][-1] == 201


def test_a_reader_who_has_gone_ends_the_writing_and_nothing_else(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    file = LineFile(writer, line_writer("json"), SMALL)
    os.close(reader)
    file.put(entry())
    _until(lambda: file.num_dropped == 1)
    for _ in range(10):
        file.put(entry())
    assert file.close()
    assert file.num_dropped == 11


def test_a_closed_descriptor_ends_it_too(pipe: tuple[int, int]) -> None:
    _, writer = pipe
    file = LineFile(writer, line_writer("json"), SMALL)
    os.close(writer)
    file.put(entry())
    _until(lambda: file.num_dropped == 1)
    assert file.close()


def test_another_file_that_gets_the_number_of_a_closed_one_gets_no_lines(pipe: tuple[int, int], tmp_path: Path) -> None:
    _, writer = pipe
    file = LineFile(writer, line_writer("json"), SMALL)
    os.close(writer)
    file.put(entry())
    _until(lambda: file.num_dropped == 1)
    other = tmp_path / "other"
    with other.open("wb", buffering=0) as opened:
        os.dup2(opened.fileno(), writer)
        file.put(entry())
        file.close()
    assert other.read_bytes() == b""
    assert file.num_dropped == 2


def test_what_is_written_in_one_piece_is_whole_lines_that_a_pipe_takes_in_one_piece(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, writer = pipe
    pieces: list[bytes] = []
    real = os.write

    def write(descriptor: int, piece: bytes) -> int:
        if descriptor == writer:
            pieces.append(bytes(piece))
        return real(descriptor, piece)

    monkeypatch.setattr(os, "write", write)
    file = LineFile(writer, line_writer("json"), Bounds(waiting=100, at_once=20, gather_seconds=0.1))
    for _ in range(20):
        file.put(Remark(1, "info", "log", "x" * 900))
    assert file.close()
    assert [len(piece.splitlines()) for piece in pieces] == [4] * 5
    assert all(piece.endswith(b"\n") and len(piece) <= 4096 for piece in pieces)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_costs_lines_and_is_tried_again() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        file = LineFile(full.fileno(), line_writer("json"), SMALL)
        for count in (1, 2):
            file.put(entry())
            _until(lambda count=count: file.num_dropped == count)  # type: ignore[misc]
        assert file.close()


def test_a_pipe_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    file = LineFile(writer, line_writer("json"), Bounds(waiting=10_000, at_once=4, gather_seconds=0.001))
    for number in range(2000):  # some times what fits the pipe
        file.put(entry(bytes_in=number))
    time.sleep(0.2)
    lines: list[dict[str, Any]] = []
    draining = threading.Thread(target=lambda: lines.extend(read_lines(reader)))
    draining.start()
    assert file.close(UNBLOCKED_SECONDS)
    os.close(writer)
    draining.join(UNBLOCKED_SECONDS)
    assert [line["bytes_in"] for line in lines] == list(range(2000))


STUCK = """
import sys, time
from service.entries import Entry
from service.logs.opening import logging_to
with logging_to(sys.stdout, "json", sample=1.0, per_second=10**6) as logs:
    for _ in range(5000):
        logs.access.record(Entry(b"a", 200, 1.0, 2.0))
    time.sleep(0.3)
"""


def test_a_process_ends_though_nobody_reads_what_it_says() -> None:
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.wait(timeout=20) == 0
    # Python's start, 0.3 s, a second for what can not be written, and a machine with other things to do.
    assert time.monotonic() - begin < 8.0
    assert process.stderr is not None
    assert process.stdout is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    process.stdout.close()


def test_a_process_without_standard_output_logs_nowhere() -> None:
    code = STUCK.replace("logs.access.record", "logs is None or logs.access.record")
    done = subprocess.run(["/bin/sh", "-c", f"exec {sys.executable} -c '{code}' >&-"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_lines_of_several_processes_do_not_mix() -> None:
    code = (
        "import sys\nfrom service.entries import Entry\nfrom service.logs.opening import logging_to\n"
        "with logging_to(sys.stdout, 'json', sample=1.0, per_second=10**6) as logs:\n"
        "    for number in range(3000):\n"
        "        logs.access.record(Entry(b'a', 200, 1.0, 2.0, path='/' + 'x' * (number % 200)))\n"
    )
    reader, writer = os.pipe()
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=writer) for _ in range(2)]
    os.close(writer)
    lines = read_lines(reader)
    assert [process.wait(timeout=20) for process in processes] == [0, 0]
    os.close(reader)
    assert len(lines) == 6000


# --- what modules say ------------------------------------------------------------------------------------------------


def test_records_warnings_and_tracebacks_come_as_lines(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    logger = logging.getLogger("service.test_logs")
    with logging_to(_stream(writer), "json", sample=1.0):
        logger.warning("%d models", 2)
        _log_failure(logger)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            logging.captureWarnings(capture=False)
            logging.captureWarnings(capture=True)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
            logging.captureWarnings(capture=False)
    os.close(writer)
    said, failed, warned = read_lines(reader)
    assert (said["event"], said["level"], said["logger"], said["message"]) == (
        "log",
        "warning",
        "service.test_logs",
        "2 models",
    )
    assert "exception" not in said
    assert failed["exception"].startswith("Traceback (most recent call last):\n")
    assert failed["exception"].endswith("ZeroDivisionError: division by zero")
    assert (warned["logger"], "DeprecationWarning: old" in warned["message"]) == ("py.warnings", True)


def test_a_traceback_as_text_stays_below_its_line() -> None:
    kept = Kept()
    handler = RecordHandler(kept.put)
    _log_failure(_logger_to(handler), "a\nb\x1b[31m")
    first, *others = as_text(kept.lines[0]).splitlines()
    assert first.endswith(" error it failed")
    assert all(line.startswith("    ") for line in others)
    assert "\x1b" not in "".join(others)


def test_what_an_error_quotes_is_not_written_whole() -> None:
    kept = Kept()
    _log_failure(_logger_to(RecordHandler(kept.put)), "secret " * 10_000)
    assert len(as_json(kept.lines[0])["exception"]) < 2000


def test_of_a_deep_traceback_the_end_is_written() -> None:
    def dig(depth: int) -> int:
        return 1 // depth if depth == 0 else dig(depth - 1)

    kept = Kept()
    logger = _logger_to(RecordHandler(kept.put))
    try:
        dig(500)
    except ZeroDivisionError:
        logger.exception("deep")
    assert as_json(kept.lines[0])["exception"].endswith("ZeroDivisionError: integer division or modulo by zero")
    assert len(as_json(kept.lines[0])["exception"]) < 9000


def test_a_log_call_with_a_mistake_is_a_line_nevertheless() -> None:
    kept = Kept()
    _logger_to(RecordHandler(kept.put)).error("%d", "no number")
    assert as_json(kept.lines[0])["message"] == "%d"


def test_records_have_a_limit_a_second_too() -> None:
    kept = Kept()
    handler = RecordHandler(kept.put, per_second=5)
    for _ in range(50):
        _logger_to(handler).error("again")
    assert len(kept.lines) < 50
    assert handler.num_left_out >= 35  # were a second to pass in between, there would be a few less


def test_a_handler_is_asked_without_a_lock() -> None:
    """The thread that holds the lock of the handler may be the very one that a signal interrupts."""
    kept = Kept()
    handler = RecordHandler(kept.put)
    handler.acquire()
    logging_thread = threading.Thread(target=_logger_to(handler).error, args=("through",), daemon=True)
    logging_thread.start()
    logging_thread.join(UNBLOCKED_SECONDS)
    handler.release()
    assert len(kept.lines) == 1


def test_off_is_off(capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to(sys.__stdout__, "off", sample=1.0) as logs:
        assert logs is None
    assert capfd.readouterr().out == ""


# --- clocks and queues -----------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_makes_no_duration_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = WallClock()
    begin = time.perf_counter()
    before = clock.read(begin)
    monkeypatch.setattr(time, "time_ns", lambda: 10**9)
    assert clock.read(begin + 0.001) - before == pytest.approx(1e6, abs=1e3)  # a float of perf_counter has 1e-7 s
    line = as_json(entry(at=begin))
    assert line["duration_ms"] == 4.0
    assert min(value for name, value in line.items() if name.endswith("_ms")) > 0


def test_a_clock_that_was_set_is_noticed_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = WallClock()
    real = time.perf_counter()
    clock.read(real)
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    monkeypatch.setattr(time, "perf_counter", lambda: real + 1.1 * REFRESH_SECONDS)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: int((real + 1.1 * REFRESH_SECONDS) * 1e9))
    assert clock.read(real + 1.1 * REFRESH_SECONDS) == pytest.approx(10**18, abs=1e3)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 40), st.integers(1, 7))
def test_a_backlog_does_everything_in_order_before_it_ends(num_items: int, at_once: int) -> None:
    done: list[list[int]] = []
    backlog = Backlog("test", done.append, Bounds(waiting=100, at_once=at_once, gather_seconds=0.0))
    for number in range(num_items):
        backlog.put(number)
    assert backlog.close(UNBLOCKED_SECONDS)
    assert [number for items in done for number in items] == list(range(num_items))
    assert all(1 <= len(items) <= at_once for items in done)


def test_a_mistake_in_the_work_does_not_end_it() -> None:
    done: list[int] = []

    def work(items: list[int]) -> None:
        done.extend(12 // item for item in items)

    backlog = Backlog("test", work, Bounds(waiting=100, at_once=1, gather_seconds=0.0))
    for number in (0, 3):
        backlog.put(number)
    assert backlog.close(UNBLOCKED_SECONDS)
    assert (done, backlog.num_dropped) == ([4], 1)


def _until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + UNBLOCKED_SECONDS
    while not is_so() and time.monotonic() < until:
        time.sleep(0.005)
    assert is_so()


def _logger_to(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("apart")  # noqa: LOG001 - nobody else is to find it
    logger.addHandler(handler)
    return logger


def _log_failure(logger: logging.Logger, text: str = "division by zero") -> None:
    try:
        _fail(text)
    except ZeroDivisionError:
        logger.exception("it failed")


def _fail(text: str) -> None:
    raise ZeroDivisionError(text)


def _stream(descriptor: int) -> io.TextIOWrapper:
    return open(descriptor, "w", closefd=False, encoding="utf-8")
