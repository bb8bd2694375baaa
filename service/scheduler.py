"""Where and when a prediction runs: short ones together on the event loop, a long one in a thread of its model's own.

A hop to a thread and back costs as much as a small network takes, so what takes no longer than some hops stays on the
loop; how long a hop takes is measured at start. A longer run would hold up every other request, the health checks too:
it goes to its model's one thread, which also keeps the session's buffers to one run at a time. What waits for the
thread is bounded, and what is beyond the bound is refused at once.

What arrived in one tick of the loop, and only that, is run together: nobody waits for somebody who may come.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

from service.errors import FoldserveError, Overloaded

# A run of so many hops would be a tenth longer in a thread; what others wait for it on the loop is as much.
WORTH_HOPS = 10
MIN_INLINE_SECONDS = 100e-6
MAX_INLINE_SECONDS = 1e-3  # on a busy machine a hop takes long, and no health check should wait for that
USUAL_INLINE_SECONDS = 300e-6  # where nobody has measured
NUM_HOPS = 50
MIN_WAITING, MAX_WAITING = 16, 4096  # the last costs some 50 ms of reading, however short the model
PATIENCE = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


class Tick(Generic[Item, Result]):
    """Gathers what arrives in one tick of the event loop, and runs it together at its end.

    Gathering costs a lone item one more turn of the loop, some 20 µs. So an item is run where it arrives, as long as
    none arrives in the same tick as the one before. Then the ticks are gathered, until `PATIENCE` of them in a row held
    one item only. To be used from one event loop.
    """

    def __init__(self, run: Callable[[Sequence[Item]], list[Result]], *, max_waiting: int = MAX_WAITING) -> None:
        self._run = run
        self._max_waiting = max_waiting
        self._items: list[Item] = []
        self._deliveries: list[Callable[[Result], object]] = []
        self._has_run = False  # an item, where it arrived, in this tick
        self._patience = 0

    def num_waiting(self) -> int:
        """Count the items that wait for the end of the tick."""
        return len(self._items)

    def add(self, item: Item, deliver: Callable[[Result], object]) -> Result | None:
        """Give the item's result, or None if it comes at the end of the tick: then `deliver` is called with it.

        Raises:
            Overloaded: too many wait already.
        """
        if not self._patience:
            if not self._has_run:
                return self._run_alone(item)
            self._patience = PATIENCE
        if len(self._items) >= self._max_waiting:
            raise Overloaded(f"{len(self._items)} requests wait already: try again in 1 s", retry_after_seconds=1)
        self._items.append(item)
        self._deliveries.append(deliver)
        if len(self._items) == 1:
            asyncio.get_running_loop().call_soon(self._run_gathered)
        return None

    def _run_alone(self, item: Item) -> Result:
        self._has_run = True
        asyncio.get_running_loop().call_soon(self._begin_tick)
        return self._run((item,))[0]

    def _begin_tick(self) -> None:
        self._has_run = False

    def _run_gathered(self) -> None:
        items, deliveries = self._items, self._deliveries
        self._items, self._deliveries = [], []
        self._patience = PATIENCE if len(items) > 1 else self._patience - 1
        for result, deliver in zip(self._run(items), deliveries, strict=True):
            _deliver(result, deliver)


def _deliver(result: Result, deliver: Callable[[Result], object]) -> None:
    """Deliver one result: whatever goes wrong with it, the others of the tick get theirs."""
    try:
        deliver(result)
    except Exception as err:  # noqa: BLE001
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "a result could not be delivered", "exception": err})


class OwnThread:
    """One thread, and a bounded queue in front of it. To be used from one event loop.

    The calls that wait stand in a queue of ours, and the executor is only told to take the next one: so a call that is
    withdrawn leaves nothing behind, neither its place nor what it was to work on.
    """

    def __init__(self, *, name: str, median_seconds: float, max_waiting: int = MAX_WAITING) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"predict-{name}")
        self._median_seconds = median_seconds
        self._max_waiting = max_waiting
        self._lock = threading.Lock()  # over what follows
        self._calls: deque[_Call] = deque()
        self._num_told = 0  # how often the executor was told to take the next one, and has not yet
        self._num_running = 0

    def submit(self, function: Callable[..., Result], *args: object) -> asyncio.Future[Result]:
        """Put a call at the end of the queue. Cancelling the future takes the call out, if it has not begun.

        Raises:
            Overloaded: the queue is full.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        call = _Call(partial(function, *args), future, loop)
        with self._lock:
            if len(self._calls) + self._num_running >= self._max_waiting:
                raise self._overloaded()
            self._calls.append(call)
            must_tell = self._num_told < len(self._calls)
            self._num_told += must_tell
        future.add_done_callback(lambda done: self._withdraw(call) if done.cancelled() else None)
        if must_tell:
            self._executor.submit(self._run_next)
        return future

    def num_waiting(self) -> int:
        """Count the calls that wait."""
        return len(self._calls)

    def num_running(self) -> int:
        """Count the calls that run: one or none."""
        return self._num_running

    def close(self) -> None:
        """Finish what was begun, drop what waits."""
        self._executor.shutdown(cancel_futures=True)

    def retire(self) -> None:
        """Finish what was begun and what waits, in its own time; nothing may be submitted any more."""
        self._executor.shutdown(wait=False)

    def _run_next(self) -> None:
        with self._lock:
            self._num_told -= 1
            call = self._calls.popleft() if self._calls else None
            self._num_running = 1 if call else 0
        if call is not None:
            call.run()
        with self._lock:
            self._num_running = 0

    def _withdraw(self, call: _Call) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._calls.remove(call)

    def _overloaded(self) -> Overloaded:
        num_waiting = len(self._calls) + self._num_running
        seconds = max(1, math.ceil(num_waiting * self._median_seconds))
        return Overloaded(f"{num_waiting} requests wait already: try again in {seconds} s", retry_after_seconds=seconds)


class _Call:
    """A call that waits, and the future that waits for it."""

    def __init__(
        self, function: Callable[[], Any], future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._function = function
        self._future = future
        self._loop = loop

    def run(self) -> None:
        """Run in this thread, and settle the future in its loop's."""
        settle, outcome = self._try()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._settle, settle, outcome)

    def _try(self) -> tuple[Callable[[Any], None], object]:
        try:
            return self._future.set_result, self._function()
        except FoldserveError as err:
            return self._future.set_exception, _without_frames(err)
        except BaseException as err:  # noqa: BLE001 - it belongs to who waits
            return self._future.set_exception, err

    def _settle(self, settle: Callable[[Any], None], outcome: object) -> None:
        if not self._future.done():
            settle(outcome)


def _without_frames(err: FoldserveError) -> FoldserveError:
    """Let go what was worked on when it went wrong: megabytes of a document may hang on the frames of a traceback."""
    err.__cause__ = err.__context__ = None
    return err.with_traceback(None)


def count_of_a_second(median_seconds: float) -> int:
    """Count how many requests may wait where nobody is to wait much longer than a second."""
    return min(max(int(1 / max(median_seconds, 1e-6)), MIN_WAITING), MAX_WAITING)


async def measure_inline_limit() -> float:
    """Measure how long a run may take, in seconds, to be run on the event loop."""
    thread = OwnThread(name="hop", median_seconds=0.0)
    seconds = [await _time_hop(thread) for _ in range(NUM_HOPS)]
    thread.close()
    return min(max(WORTH_HOPS * statistics.median(seconds), MIN_INLINE_SECONDS), MAX_INLINE_SECONDS)


async def _time_hop(thread: OwnThread) -> float:
    start = time.perf_counter()
    await thread.submit(time.perf_counter)
    return time.perf_counter() - start
