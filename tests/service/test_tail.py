"""The tail report: the slowest are kept, and each cause, provoked for real, is named."""

from __future__ import annotations

import asyncio
import gc
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from service.app import App, create_app
from service.connection import Limits, connections
from service.metrics import Metrics, ModelMetrics
from service.protocols.answer import Answer
from service.protocols.contract import Headers, Question
from service.protocols.lane import Lane
from service.protocols.paths import OWN
from service.settings import Settings
from service.tail import causes
from service.tail.causes import Judged, judge, summarize
from service.tail.counters import NoCounters, Sample, measure_fault_seconds, open_counters
from service.tail.recorder import Tail, WatchedMetrics, in_steps
from service.tail.report import TailReport, write_report
from service.tail.slow import Evidence, Slow
from service.tail.watch import SLEPT_SECONDS, Watch
from tests.service.running_server import RunningServer, running_server
from tests.service.tiny_models import TinyModel, tiny_model, write_tiny_bundle

BODY = b'{"instance":[1,2,3,4]}'
POST = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
ON_LINUX = sys.platform == "linux"
# The machine that runs the tests has other things to do: it may take a request's CPU away in the middle of a test.
ATTEMPTS = 5
LONG_SECONDS = 0.05
NUM_TOUCHED_BYTES = 64 * 1024 * 1024
USUAL_SECONDS = 100e-6


def make_app(root: Path, *, tail_report: int = 8) -> App:
    if not (root / "digits").exists():
        write_tiny_bundle(root, tiny_model())
    return create_app(Settings(models=root, device="cpu", tail_report=tail_report))


def ask(lane: Lane) -> None:
    """Ask as the connection does; the answer comes at once."""
    arrived = time.perf_counter()
    answer = lane.ask(Question(BODY), lambda _: None)
    assert isinstance(answer, Answer)
    lane.count(answer, arrived, Headers(), b"1")


def ask_thread(lane: Lane) -> asyncio.Future[None]:
    """Ask a model that has a thread of its own; give what is done when it is answered."""
    arrived, delivered = time.perf_counter(), asyncio.get_running_loop().create_future()

    def deliver(answer: Answer) -> None:
        lane.count(answer, arrived, Headers(), b"1")
        delivered.set_result(None)

    lane.ask(Question(BODY), deliver)
    return delivered


def sleep_first(question: Any) -> Any:
    """Take long, without a CPU."""
    time.sleep(0.02)
    return question


def slowest_with(
    app: App, monkeypatch: pytest.MonkeyPatch, disturb: Callable[[], object], prepare: Callable[[], object] = object
) -> Judged:
    """Serve some requests as usual, then one with a disturbance while it is computed; give the slowest, judged."""

    async def main() -> Judged:
        async with app.running():
            lane = app.directory.find("digits").lanes[OWN]
            for _ in range(50):
                ask(lane)
                await asyncio.sleep(0)
            prepared = prepare()
            assert app.tail is not None
            app.tail.forget()
            try_read = lane.contract.try_read
            monkeypatch.setattr(lane.contract, "try_read", lambda question: (disturb(), try_read(question))[1])
            await asyncio.sleep(0.002)  # the loop sleeps: what comes now has not waited
            ask(lane)
            await asyncio.sleep(0)
            monkeypatch.undo()
            del prepared
            kept = app.tail.kept()
        return judge(kept.slowest[0], kept.usual_seconds["digits"])

    return asyncio.run(main())


def until_named(cause: str, attempt: Callable[[], Judged]) -> Judged:
    """Try until the machine leaves us alone."""
    for _ in range(ATTEMPTS):
        judged = attempt()
        if judged.main_cause == cause:
            break
    return judged


# --- each cause, for real --------------------------------------------------------------------------------------------


def test_a_garbage_collection_in_the_middle_of_a_request_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(tmp_path)

    def prepare() -> list[list[int]]:
        return [[number] for number in range(500_000)]

    judged = until_named(causes.GARBAGE, lambda: slowest_with(app, monkeypatch, gc.collect, prepare))
    assert judged.main_cause == causes.GARBAGE, judged
    assert 2 in judged.slow.evidence.generations  # younger ones may have been due just then
    assert 0 < judged.slow.evidence.garbage_seconds <= judged.slow.seconds
    assert judged.because.startswith("generation 2 was collected: ")


@pytest.mark.skipif(not ON_LINUX, reason="page faults of a thread are counted on Linux")
def test_touching_new_memory_is_named_page_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(tmp_path)

    def disturb() -> None:
        with mmap.mmap(-1, NUM_TOUCHED_BYTES) as memory:
            memory.madvise(mmap.MADV_NOHUGEPAGE)
            memory[:: mmap.PAGESIZE] = bytes(NUM_TOUCHED_BYTES // mmap.PAGESIZE)

    judged = until_named(causes.PAGE_FAULTS, lambda: slowest_with(app, monkeypatch, disturb))
    assert judged.main_cause == causes.PAGE_FAULTS, judged
    assert judged.slow.evidence.minor_faults >= NUM_TOUCHED_BYTES // mmap.PAGESIZE


@contextmanager
def busy_neighbour(cpu: int) -> Iterator[None]:
    """Another process that never rests on this CPU."""
    code = f"import os; os.sched_setaffinity(0, {{{cpu}}}); print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as neighbour:
        assert neighbour.stdout is not None
        neighbour.stdout.readline()
        try:
            yield
        finally:
            neighbour.kill()


@contextmanager
def on_one_cpu() -> Iterator[int]:
    """Let this thread run on one CPU only."""
    allowed = os.sched_getaffinity(0)
    cpu = min(allowed)
    os.sched_setaffinity(0, {cpu})
    try:
        yield cpu
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.skipif(not ON_LINUX, reason="needs the kernel's schedstat")
def test_neighbours_on_the_same_cpu_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/thread-self/schedstat").exists():
        pytest.skip("this kernel does not say how long a thread waits for a CPU")
    app = make_app(tmp_path)

    def disturb() -> None:
        end = time.thread_time() + LONG_SECONDS
        while time.thread_time() < end:
            pass

    with on_one_cpu() as cpu, busy_neighbour(cpu), busy_neighbour(cpu):
        judged = until_named(causes.CPU_WAIT, lambda: slowest_with(app, monkeypatch, disturb))
    assert judged.main_cause == causes.CPU_WAIT, judged  # two thirds of the time are the neighbours'
    assert judged.slow.evidence.preemptions > 0
    assert judged.slow.evidence.cpu_wait_seconds >= LONG_SECONDS / 2


def test_another_thread_of_the_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(tmp_path)
    started: list[Any] = []

    def burn() -> None:
        end = time.thread_time() + LONG_SECONDS
        while time.thread_time() < end:
            pass

    def disturb() -> None:
        import threading

        thread = threading.Thread(target=burn)
        started.append(thread)
        thread.start()
        thread.join()

    judged = until_named(causes.OTHER_THREADS, lambda: slowest_with(app, monkeypatch, disturb))
    assert judged.main_cause == causes.OTHER_THREADS, judged
    assert judged.slow.evidence.other_threads_seconds > LONG_SECONDS / 2


@asynccontextmanager
async def listening(app: App) -> AsyncIterator[int]:
    """Serve with our connections in this event loop; give the port."""
    state, loop = ServerState(), asyncio.get_running_loop()
    config = uvicorn.Config(app, log_config=None)
    limits = Limits(header_seconds=5.0, receive_seconds=5.0, write_seconds=5.0, max_connections=100)
    create = connections(app.directory.lane, app.gate, limits=limits)
    async with app.running():
        server = await loop.create_server(lambda: create(config, state, {}), "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()


ASK_TWO = """
import socket, sys, time
first, second = (socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(2))
for _ in range(50):
    second.sendall({post!r}); second.recv(65536)
time.sleep(0.01)
first.sendall(b"GET /slow HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
time.sleep(0.01)
second.sendall({post!r}); second.recv(65536)
first.recv(65536)
"""


def test_a_route_that_holds_the_loop_while_a_prediction_waits_in_its_socket_is_named(tmp_path: Path) -> None:
    async def hold(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        time.sleep(LONG_SECONDS)  # noqa: ASYNC251 - that is what a bad route does
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main() -> Judged:
        app = make_app(tmp_path)
        app.rest = hold
        async with listening(app) as port:
            command = [sys.executable, "-c", ASK_TWO.format(post=POST), str(port)]
            client = await asyncio.create_subprocess_exec(*command)
            assert await client.wait() == 0
            assert app.tail is not None
            kept = app.tail.kept()
        return judge(kept.slowest[0], kept.usual_seconds["digits"])

    judged = until_named(causes.OTHER_REQUESTS, lambda: asyncio.run(main()))
    assert judged.main_cause == causes.OTHER_REQUESTS, judged
    assert "GET /slow ran for " in judged.because
    assert judged.slow.waited_seconds > 0.5 * LONG_SECONDS
    assert judged.slow.evidence.routes["GET /slow"] >= 0.5 * LONG_SECONDS


def test_a_queue_in_front_of_a_models_own_thread_is_named_other_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.scheduler.MAX_INLINE_SECONDS", 0.0)
    app = make_app(tmp_path)

    async def main() -> tuple[Lane, Judged]:
        async with app.running():
            lane = app.directory.find("digits").lanes[OWN]
            try_read = lane.contract.try_read
            for _ in range(10):
                await ask_thread(lane)
            assert app.tail is not None
            app.tail.forget()
            monkeypatch.setattr(lane.contract, "try_read", lambda question: try_read(sleep_first(question)))
            await asyncio.gather(*(ask_thread(lane) for _ in range(3)))
            await asyncio.sleep(0)
            kept = app.tail.kept()
        return lane, judge(kept.slowest[0], kept.usual_seconds["digits"])

    lane, judged = asyncio.run(main())
    assert lane.runner.thread is not None
    assert judged.slow.evidence.num_predictions == 2
    assert judged.main_cause == causes.OTHER_REQUESTS, judged
    assert "other predictions were answered (2): " in judged.because


# --- what is kept ----------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(seconds=st.lists(st.integers(1, 1000), max_size=40, unique=True), num_kept=st.integers(1, 10))
def test_the_slowest_are_kept_and_no_others(seconds: list[int], num_kept: int) -> None:
    async def main() -> list[float]:
        tail = Tail(num_kept)
        with tail.watching():
            model = await tail.watch_model("m", Metrics().for_model("m", "1"), None)
            for number, one in enumerate(seconds):
                model.record(Answer(200, b""), one)
                if number % 3 == 0:
                    await asyncio.sleep(0)
            return [slow.answering_seconds for slow in tail.kept().slowest]

    # Whole seconds: their order is not changed by what this test itself lets them wait, or by rounding.
    assert sorted(asyncio.run(main()), reverse=True) == sorted(seconds, reverse=True)[:num_kept]


def test_what_is_counted_for_prometheus_stays_the_same() -> None:
    metrics = Metrics()

    async def main() -> None:
        tail = Tail(2)
        with tail.watching():
            model = await tail.watch_model("m", metrics.for_model("m", "1"), None)
            for _ in range(5):
                model.record(Answer(422, b"", "instance_invalid"), 0.1)

    asyncio.run(main())
    plain = Metrics()
    for _ in range(5):
        plain.for_model("m", "1").record(Answer(422, b"", "instance_invalid"), 0.1)
    assert metrics.counted() == plain.counted()


def test_forgetting_begins_anew() -> None:
    async def main() -> tuple[int, TailReport]:
        tail = Tail(2)
        with tail.watching():
            model = await tail.watch_model("m", Metrics().for_model("m", "1"), None)
            for seconds in (1.0, 2.0, 3.0):
                model.record(Answer(200, b""), seconds)
            forgotten = tail.forget()
            model.record(Answer(200, b""), 0.5)
            return forgotten, write_report(tail.kept())

    forgotten, report = asyncio.run(main())
    assert forgotten == 2
    assert report.predictions == 1
    assert [slow.answering_us for slow in report.slowest] == [0.5e6]


def test_the_garbage_collector_is_left_as_it_was() -> None:
    before = list(gc.callbacks)

    async def main() -> None:
        with Tail(2).watching():
            assert len(gc.callbacks) == len(before) + 1

    asyncio.run(main())
    assert gc.callbacks == before


@pytest.mark.parametrize("tail_report", [0, 4])
def test_a_server_without_a_tail_has_plain_metrics_and_nothing_around_its_routes(
    tmp_path: Path, tail_report: int
) -> None:
    app = make_app(tmp_path, tail_report=tail_report)
    rest = app.rest

    async def main() -> tuple[type, bool]:
        async with app.running():
            return type(app.directory.find("digits").lanes[OWN].metrics), app.rest == rest

    expected = (WatchedMetrics, False) if tail_report else (ModelMetrics, True)
    assert asyncio.run(main()) == expected
    assert app.rest == rest


def test_while_it_serves_no_other_thread_holds_python_for_long(tmp_path: Path) -> None:
    before = sys.getswitchinterval()

    async def main() -> float:
        async with make_app(tmp_path).running():
            return sys.getswitchinterval()

    assert asyncio.run(main()) < 1e-3 < before
    assert sys.getswitchinterval() == before


# --- when it can have arrived ----------------------------------------------------------------------------------------


class Script:
    """Counters that say what they are told."""

    knows_waiting = True

    def __init__(self, *samples: Sample) -> None:
        self._samples = iter(samples)

    def read(self) -> Sample:
        return next(self._samples)

    def close(self) -> None:
        pass


def test_a_request_can_not_have_arrived_before_the_threads_last_sleep() -> None:
    watch = Watch(Script(Sample(0.0), Sample(1.0, ran=0.2, waited=0.1), Sample(1.5, ran=0.7, waited=0.1)))
    watch.look()  # of one second 0.3 s were not slept, and these came last
    watch.look()  # and since then it has not slept
    assert watch.earliest_arrival(1.4) == pytest.approx(0.7)


def test_a_request_can_not_have_arrived_before_the_loop_asked_the_last_time_but_one() -> None:
    watch = Watch(Script(Sample(0.0), Sample(4.0, ran=4.0 - SLEPT_SECONDS / 2)))
    for poll in (1.0, 2.0, 3.0):
        watch.note_poll(poll)
    watch.look()
    assert watch.earliest_arrival(3.5) == 2.0  # asked for at 3.0, when it was not read yet: it may have come just then
    assert watch.earliest_arrival(2.5) == 1.0


def test_what_lies_between_two_times_is_counted_by_the_samples_around_them() -> None:
    samples = [Sample(float(at), minor_faults=at * 10) for at in range(5)]
    watch = Watch(Script(*samples))
    for _ in samples[1:]:
        watch.look()
    assert watch.between(1.5, 2.5).minor_faults == 20
    assert watch.between(1.0, 3.0).minor_faults == 20
    assert watch.between(3.5, 9.0).minor_faults == 10


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), max_size=8))
def test_predictions_that_overlap_are_not_counted_twice(spans: list[list[float]]) -> None:
    watch = Watch(Script(Sample(0.0)))
    for read_at, at in sorted(spans, key=lambda span: span[1]):
        watch.note_answer(read_at, at)
    number, seconds = watch.others(0.25, 0.75, 0.75)
    assert number == sum(0.25 < at < 0.75 for _, at in spans)
    assert 0 <= seconds <= 0.5


@pytest.mark.skipif(not ON_LINUX, reason="counted on Linux")
def test_the_counters_of_a_thread_count() -> None:
    import threading

    counters = open_counters(threading.get_ident(), threading.get_native_id(), alone=True)
    before = counters.read()
    end = time.thread_time() + 0.01
    while time.thread_time() < end:
        pass
    after = counters.read()
    assert after.since(before).ran >= 0.01
    assert after.since(before).process_ran >= 0.01
    assert 0 < measure_fault_seconds(counters) < 1e-3
    counters.close()


def test_elsewhere_nothing_is_counted_but_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    counters = open_counters(1, 1, alone=True)
    assert isinstance(counters, NoCounters)
    assert counters.read()[1:] == (0.0, 0.0, 0.0, 0, 0, 0)
    watch = Watch(counters)
    watch.look()
    now = time.perf_counter()
    assert watch.earliest_arrival(now) <= now


# --- the judgement ---------------------------------------------------------------------------------------------------


def slow(waited: float, answering: float, **evidence: Any) -> Slow:
    return Slow(
        at=0.0,
        model="m",
        status=200,
        waited_seconds=waited,
        answering_seconds=answering,
        evidence=Evidence(**evidence),
    )


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        ({}, causes.UNEXPLAINED),
        ({"garbage_seconds": 0.4e-3, "generations": (0,)}, causes.UNEXPLAINED),  # less than half of 0.9 ms
        ({"garbage_seconds": 0.5e-3, "generations": (0,)}, causes.GARBAGE),
        ({"garbage_seconds": 0.3e-3, "cpu_wait_seconds": 0.2e-3}, causes.GARBAGE),  # together enough: the largest
        ({"garbage_seconds": 0.2e-3, "cpu_wait_seconds": 0.3e-3}, causes.CPU_WAIT),
        ({"minor_faults": 500, "fault_seconds": 0.5e-3}, causes.PAGE_FAULTS),
        ({"major_faults": 1}, causes.PAGE_FAULTS),
        ({"num_predictions": 9, "predictions_seconds": 0.9e-3}, causes.OTHER_REQUESTS),
        ({"num_predictions": 1, "predictions_seconds": 0.1e-3}, causes.UNEXPLAINED),  # usual
        ({"routes": {"GET /docs": 0.6e-3}}, causes.OTHER_REQUESTS),
        ({"other_threads_seconds": 0.8e-3}, causes.OTHER_THREADS),
        ({"steal_seconds": 0.01, "steal_window_seconds": 0.05}, causes.STEAL),
    ],
)
def test_a_cause_is_the_main_one_if_half_of_the_excess_is_explained(evidence: dict[str, Any], cause: str) -> None:
    judged = judge(slow(0.5e-3, 0.5e-3, **evidence), USUAL_SECONDS)
    assert judged.main_cause == cause
    assert sum(judged.seconds.values()) <= judged.slow.seconds * (1 + 1e-9)
    assert "1,000 µs, usual are 100 µs" in judged.because


def test_a_request_of_the_usual_length_is_the_models_own_run() -> None:
    assert judge(slow(0.0, 1.9 * USUAL_SECONDS), USUAL_SECONDS).main_cause == causes.OWN_RUN
    assert judge(slow(0.0, 0.5 * USUAL_SECONDS), USUAL_SECONDS).main_cause == causes.OWN_RUN
    assert judge(slow(0.0, 2.1 * USUAL_SECONDS), USUAL_SECONDS).main_cause == causes.UNEXPLAINED


def test_the_summary_counts_the_main_causes() -> None:
    one = judge(slow(0.0, 1.0), USUAL_SECONDS)
    two = replace(one, main_cause=causes.GARBAGE)
    assert summarize([two, one, two]) == "of the 3 slowest: 2 garbage collection, 1 unexplained"
    assert summarize([]) == "of the 0 slowest: nothing was predicted yet"


# --- routes, step by step --------------------------------------------------------------------------------------------


def test_what_runs_in_steps_is_cancelled_and_fails_as_before() -> None:
    seen: list[str] = []

    async def inner() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def main() -> int:
        steps: list[Sample] = []

        async def run(answering: Any) -> None:
            await in_steps(answering, lambda: Sample(0.0), steps.append)

        task = asyncio.create_task(run(inner()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ZeroDivisionError):
            await run(failing())
        return len(steps)

    assert asyncio.run(main()) == 4  # two each
    assert seen == ["cancelled"]


# --- a real server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(digits: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root: Path = tmp_path_factory.mktemp("models")
    write_tiny_bundle(root, digits)
    with running_server("--models", str(root), "--device", "cpu", "--tail-report", "5") as running:
        yield running


def print_report(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "service.tail", url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_real_server_reports_its_slowest_and_forgets_them(watched: RunningServer) -> None:
    body = json.dumps({"instance": [0] * 64}).encode()
    with watched.client() as client:
        client.delete("/tail-report")
        for _ in range(20):
            assert client.post("/predict", content=body).status_code == 200
        assert client.post("/predict", content=b"{").status_code == 400
        report = client.get("/tail-report").json()
        assert report["predictions"] == 21
        assert len(report["slowest"]) == 5
        assert report["summary"].startswith("of the 5 slowest: ")
        assert report["pid"] == watched.process.pid
        assert sum(report["main_causes"].values()) == 5
        microseconds = [one["us"] for one in report["slowest"]]
        assert microseconds == sorted(microseconds, reverse=True)
        for one in report["slowest"]:  # each is rounded to 0.1
            assert one["us"] == pytest.approx(one["waited_us"] + one["answering_us"], abs=0.2)
        assert client.delete("/tail-report").json() == {"forgotten": 5}
        assert client.get("/tail-report").json()["slowest"] == []
        assert client.post("/tail-report").status_code == 405
    assert "Traceback" not in "".join(watched.err)


def test_the_report_is_printed_as_a_table(watched: RunningServer) -> None:
    with watched.client() as client:
        client.post("/predict", json={"instance": [0] * 64})
    shown = print_report(watched.url)
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("of the ")
    assert str(watched.process.pid) in lines[1]
    assert lines[4].split("  ")[0] == "answered at"
    assert "digits" in lines[5]


def test_both_routes_are_in_the_openapi_document(watched: RunningServer) -> None:
    with watched.client() as client:
        assert client.get("/openapi.json").json()["paths"]["/tail-report"].keys() == {"get", "delete"}


def test_a_server_that_keeps_none_says_how_to_get_one(server: RunningServer) -> None:
    with server.client() as client:
        for method in ("GET", "DELETE"):
            refused = client.request(method, "/tail-report")
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
            assert "start the server with --tail-report" in refused.json()["error"]
    shown = print_report(server.url)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert len(shown.stderr.splitlines()) == 1
    assert "answers 404: no tail report is kept" in shown.stderr


@pytest.mark.parametrize(("address", "code"), [("127.0.0.1:1", 2), ("http://127.0.0.1:1", 1)])
def test_a_wrong_address_is_one_plain_line(address: str, code: int) -> None:
    shown = print_report(address)
    assert (shown.returncode, shown.stdout) == (code, "")
    assert len(shown.stderr.splitlines()) == 1


def test_of_several_processes_each_says_that_it_is_one(digits: TinyModel, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, digits)
    arguments = ("--models", str(tmp_path), "--device", "cpu", "--tail-report", "3", "--workers", "2")
    with running_server(*arguments) as server, server.client() as client:
        report = client.get("/tail-report").json()
    assert report["note"].startswith("one of 2 processes, each of which keeps its own")
    assert report["pid"] != server.process.pid
