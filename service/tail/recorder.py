"""Keeps the slowest predictions and what happened around them, while the server serves.

A server that was not asked to does not load this. There are three hooks: each model's metrics are told of each answer
(`WatchedMetrics`), the routes that do not predict are run step by step (`watch_rest`), and Python tells of its garbage
collections. An answer is only noted while its client waits. The system's counters are read at the end of the event
loop's turn, once for all that it answered, and the evidence is gathered for those requests only that are among the
slowest.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import statistics
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from operator import itemgetter
from types import coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from service.metrics import ModelMetrics, Recorder
from service.protocols.answer import Answer
from service.scheduler import OwnThread
from service.tail.counters import Sample, measure_fault_seconds, open_counters, read_steal_seconds
from service.tail.slow import Evidence, Kept, Slow
from service.tail.watch import Watch

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PULSE_SECONDS = 0.05  # so that what happened long before a lone request is not taken for its doing
STEAL_SECONDS = 0.5  # from one look at the steal time to the next, if nothing happens
STEAL_SHARE = 1e-3  # of the time may go to reading the steal time: with hundreds of CPUs that takes long
NUM_USUAL = 1000
NUM_SPANS = 256
LONGEST_ROUTE = 80
ITSELF = "the tail report itself"  # what it does holds up others too


class Span(NamedTuple):
    """Something that ran from `begin` to `end`, and of that waited for a CPU."""

    name: str
    begin: float
    end: float
    waited: float = 0.0

    def overlap(self, begin: float, end: float) -> float:
        """Give the seconds that it has in common with a time."""
        return max(0.0, min(self.end, end) - max(self.begin, begin))


class Answered(NamedTuple):
    """An answer, given at `at` (time.perf_counter) and so many seconds after its request was here and read."""

    model: WatchedMetrics
    status: int
    seconds: float
    at: float


@dataclass
class Draft:
    """A slow request, and beside it, as it is known a moment later only, what the host stole, in which time."""

    slow: Slow
    steal_seconds: float = 0.0
    steal_window_seconds: float = 0.0

    def finish(self) -> Slow:
        """Put both together."""
        evidence = replace(
            self.slow.evidence, steal_seconds=self.steal_seconds, steal_window_seconds=self.steal_window_seconds
        )
        return replace(self.slow, evidence=evidence)


class WatchedMetrics:
    """A model's counters, and beside them the tail's. `own` is the watch of its thread, if it has one."""

    def __init__(self, name: str, metrics: ModelMetrics, tail: Tail, own: Watch | None) -> None:
        self.name = name
        self.own = own
        self.totals: deque[float] = deque(maxlen=NUM_USUAL)
        self._count = metrics.record
        self._tail = tail

    def record(self, answer: Answer, seconds: float, arrived: float = 0.0) -> None:
        """Count one answered request."""
        self._count(answer, seconds, arrived)
        self._tail.note(self, answer.status, seconds)


class Tail:
    """The `num_kept` slowest predictions of this process. Everything happens in the event loop's thread."""

    def __init__(self, num_kept: int, *, num_processes: int = 1) -> None:
        self._num_kept = num_kept
        self._num_processes = num_processes
        self._models: list[WatchedMetrics] = []
        self._since = time.time()
        self._num_answered = 0
        self._kept: list[tuple[float, int, Draft]] = []  # a heap: the fastest of them first
        self._drafts: list[Draft] = []  # those that are not settled
        self._answered: list[Answered] = []  # since the last turn ended
        self._steps: deque[Span] = deque(maxlen=NUM_SPANS)
        self._collections: deque[Span] = deque(maxlen=NUM_SPANS)
        self._collecting_since = 0.0
        self._turn_is_noted = False
        self._steal = (0.0, 0.0)  # when it was read, and what
        self._steal_pause = STEAL_SECONDS

    # --- begin and end -----------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the calling thread, in which an event loop runs."""
        self._open()
        try:
            yield
        finally:
            self._close()

    def _open(self) -> None:
        self._since = time.time()
        self._loop = asyncio.get_running_loop()
        self._watch = Watch(open_counters(threading.get_ident(), threading.get_native_id(), alone=True))
        self._fault_seconds = measure_fault_seconds(self._watch.counters)
        self._steal = (time.perf_counter(), read_steal_seconds())
        gc.callbacks.append(self._on_collection)
        self._pulse()

    def _close(self) -> None:
        self._timer.cancel()
        gc.callbacks.remove(self._on_collection)
        for watch in (self._watch, *(model.own for model in self._models)):
            if watch is not None:
                watch.counters.close()

    # --- hooks -------------------------------------------------------------------------------------------------------

    async def watch_model(self, name: str, metrics: ModelMetrics, thread: OwnThread | None) -> Recorder:
        """Give what counts for a model in the place of its plain metrics."""
        own = None
        if thread is not None:
            ident, native_id = await thread.submit(_name_thread)
            own = Watch(open_counters(ident, native_id, alone=False))
        model = WatchedMetrics(name, metrics, self, own)
        self._models.append(model)
        return model

    def watch_rest(self, rest: ASGIApp) -> ASGIApp:
        """Give an application that answers as `rest` does, and is seen whenever it holds the event loop."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            answering: Any = rest(scope, receive, send)
            if scope["type"] == "http":
                name = f"{scope['method']} {scope['path'][:LONGEST_ROUTE]}"
                answering = in_steps(answering, self._watch.look, partial(self._note_step, name))
            await answering

        return watched

    def note(self, model: WatchedMetrics, status: int, seconds: float) -> None:
        """Note an answer: at once, for the client still waits for it."""
        self._answered.append(Answered(model, status, seconds, time.perf_counter()))
        self._note_turn()

    def _note_step(self, name: str, begin: Sample) -> None:
        end = self._watch.look(worked=True)
        self._steps.append(Span(name, begin.at, end.at, end.waited - begin.waited))
        self._note_turn()

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._collecting_since = now
        else:
            self._collections.append(Span(str(info["generation"]), self._collecting_since, now))

    # --- the loop's turns, and time --------------------------------------------------------------------------------

    def _note_turn(self) -> None:
        if not self._turn_is_noted:
            self._turn_is_noted = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        """After the answers were written, and before the loop asks for what has arrived."""
        self._turn_is_noted = False
        self._look_back()
        self._watch.note_poll(time.perf_counter())

    def _pulse(self) -> None:
        self._timer = self._loop.call_later(PULSE_SECONDS, self._pulse)
        begin = self._watch.look()
        if begin.at - self._steal[0] >= (PULSE_SECONDS if self._drafts else self._steal_pause):
            self._settle()
            self._note_step(ITSELF, begin)

    def _settle(self) -> None:
        (then, before), now, stolen = self._steal, time.perf_counter(), read_steal_seconds()
        self._steal_pause = max(STEAL_SECONDS, (time.perf_counter() - now) / STEAL_SHARE)
        drafts, self._drafts = self._drafts, []
        for draft in drafts:
            draft.steal_seconds, draft.steal_window_seconds = stolen - before, now - then
        self._steal = (now, stolen)

    # --- the slowest -------------------------------------------------------------------------------------------------

    def kept(self) -> Kept:
        """Give what is kept."""
        self._look_back()
        self._settle()
        return Kept(
            slowest=tuple(draft.finish() for _, _, draft in sorted(self._kept, key=itemgetter(0, 1), reverse=True)),
            usual_seconds={model.name: statistics.median(model.totals) for model in self._models if model.totals},
            since=self._since,
            num_predictions=self._num_answered,
            num_processes=self._num_processes,
            knows_waiting=self._watch.counters.knows_waiting,
        )

    def forget(self) -> int:
        """Begin anew; say how many slow requests are forgotten."""
        self._look_back()
        number = len(self._kept)
        self._kept.clear()
        self._since, self._num_answered = time.time(), 0
        return number

    def _look_back(self) -> None:
        """See which of the answers since the last turn are among the slowest."""
        answered, self._answered = self._answered, []
        if not answered:
            return
        for watch in {one.model.own for one in answered if one.model.own is not None}:
            watch.look()
        begin, num_drafts = self._watch.look(), len(self._drafts)
        for one in answered:
            (one.model.own or self._watch).note_answer(one.at - one.seconds, one.at)
        for one in answered:
            self._judge(one)
        if len(self._drafts) > num_drafts:
            self._note_step(ITSELF, begin)

    def _judge(self, one: Answered) -> None:
        read_at = one.at - one.seconds
        arrived = self._watch.earliest_arrival(read_at)
        total = one.at - arrived
        one.model.totals.append(total)
        self._num_answered += 1
        if len(self._kept) < self._num_kept or total > self._kept[0][0]:
            self._keep(total, Draft(self._describe(one, arrived)))

    def _keep(self, total: float, draft: Draft) -> None:
        self._drafts.append(draft)
        place = heapq.heappush if len(self._kept) < self._num_kept else heapq.heapreplace
        place(self._kept, (total, -self._num_answered, draft))

    def _describe(self, one: Answered, arrived: float) -> Slow:
        return Slow(
            at=time.time() - (time.perf_counter() - one.at),
            model=one.model.name,
            status=one.status,
            waited_seconds=one.at - one.seconds - arrived,
            answering_seconds=one.seconds,
            evidence=self._gather(one, arrived),
        )

    def _gather(self, one: Answered, begin: float) -> Evidence:
        """Gather what happened from `begin` to an answer."""
        model, end = one.model, one.at
        loop = self._watch.between(begin, end)
        own = model.own.between(begin, end) if model.own is not None else Sample(0.0)
        here = own if model.own is not None else loop
        collections = _overlapping(self._collections, begin, end)
        number, seconds = (model.own or self._watch).others(begin, end - one.seconds, end)
        return Evidence(
            ran_seconds=here.ran,
            garbage_seconds=sum(span.overlap(begin, end) for span in collections),
            generations=tuple(sorted({int(span.name) for span in collections})),
            cpu_wait_seconds=loop.waited + own.waited,
            preemptions=here.preemptions,
            minor_faults=here.minor_faults,
            major_faults=here.major_faults,
            fault_seconds=here.minor_faults * self._fault_seconds,
            other_threads_seconds=max(0.0, loop.process_ran - loop.ran - own.ran),
            num_predictions=number,
            predictions_seconds=seconds,
            routes=self._find_routes(begin, end),
        )

    def _find_routes(self, begin: float, end: float) -> dict[str, float]:
        found: dict[str, float] = {}
        for step in _overlapping(self._steps, begin, end):
            overlap = step.overlap(begin, end)
            waited = step.waited * overlap / (step.end - step.begin)
            first, last = max(begin, step.begin), min(end, step.end)
            collected = sum(span.overlap(first, last) for span in _overlapping(self._collections, first, last))
            found[step.name] = found.get(step.name, 0.0) + max(0.0, overlap - waited - collected)
        return found


def _overlapping(spans: deque[Span], begin: float, end: float) -> list[Span]:
    """Give the spans that have a time in common with this one; they stand in the order of their ends."""
    recent = takewhile(lambda span: span.end > begin, reversed(spans))
    return [span for span in recent if span.overlap(begin, end)]


def _name_thread() -> tuple[int, int]:
    return threading.get_ident(), threading.get_native_id()


@coroutine
def in_steps(
    answering: Awaitable[None], look: Callable[[], Sample], note: Callable[[Sample], None]
) -> Generator[Any, Any, None]:
    """Run something that is awaited, and note when each of its steps begins: from one await that waits to the next."""
    running: Any = answering.__await__()
    resume: Callable[[], Any] = partial(running.send, None)
    while True:
        begin = look()
        try:
            waits_for = resume()
        except StopIteration:
            return
        finally:
            note(begin)
        try:
            yield waits_for
            resume = partial(running.send, None)
        except BaseException as err:  # noqa: BLE001 - it is the inner one's: a cancellation, say
            resume = partial(running.throw, err)
