"""Where and when a prediction runs: short ones together on the event loop, a long one in a thread of its model's own.

A hop to a thread and back costs as much as a small network takes, so what is done within `INLINE_LIMIT_SECONDS` stays
on the loop. A longer run would hold up every other request, the health checks too: it goes to its model's one thread,
which also keeps the session's buffers to one run at a time. What waits for the thread is bounded, and what is beyond
the bound is refused at once.

What arrived in one tick of the loop, and only that, is run together: nobody waits for somebody who may come.
"""

from __future__ import annotations

import asyncio
import math
import types
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from service.errors import Overloaded

INLINE_LIMIT_SECONDS = 300e-6
MAX_WAITING = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gathered(Generic[Item, Result]):
    """What arrived in one tick, and its results once it has been run."""

    __slots__ = ("items", "results")

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.results: list[Result] | None = None


class Tick(Generic[Item, Result]):
    """Gathers what arrives in one tick of the event loop, and runs it together at its end."""

    def __init__(self, run: Callable[[list[Item]], list[Result]]) -> None:
        self._run = run
        self._gathered: Gathered[Item, Result] = Gathered()

    async def submit(self, item: Item) -> Result:
        """Wait for the end of the tick, and give the item's result.

        Who wakes up first runs the items of all. One that was cancelled meanwhile is run too, for nobody.
        """
        gathered = self._gathered
        place = len(gathered.items)
        gathered.items.append(item)
        await _next_tick()
        if gathered.results is None:
            self._gathered = Gathered()
            gathered.results = self._run(gathered.items)
        return gathered.results[place]


@types.coroutine
def _next_tick() -> Generator[None]:
    """Let all run that is ready now: what `asyncio.sleep(0)` does, at a third of its cost."""
    yield


class OwnThread:
    """One thread, and a bounded queue in front of it. To be used from one event loop."""

    def __init__(self, *, name: str, median_seconds: float, max_waiting: int = MAX_WAITING) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"predict-{name}")
        self._median_seconds = median_seconds
        self._max_waiting = max_waiting
        self._num_waiting = 0

    def submit(self, function: Callable[..., Result], *args: object) -> asyncio.Future[Result]:
        """Put a call at the end of the queue. Cancelling the future takes the call out, if it has not begun.

        Raises:
            Overloaded: the queue is full.
        """
        if self._num_waiting >= self._max_waiting:
            raise self._overloaded()
        self._num_waiting += 1
        call = self._executor.submit(function, *args)
        loop = asyncio.get_running_loop()
        # Counted down by the call itself: a cancelled future is done long before a call that has begun.
        call.add_done_callback(lambda done: self._count_down_on(loop, done))
        return asyncio.wrap_future(call)

    def close(self) -> None:
        """Finish what was begun, drop what waits."""
        self._executor.shutdown(cancel_futures=True)

    def _overloaded(self) -> Overloaded:
        seconds = max(1, math.ceil(self._num_waiting * self._median_seconds))
        return Overloaded(
            f"{self._num_waiting} requests wait already: try again in {seconds} s", retry_after_seconds=seconds
        )

    def _count_down_on(self, loop: asyncio.AbstractEventLoop, _: Future[Result]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._count_down)

    def _count_down(self) -> None:
        self._num_waiting -= 1


def choose_thread(name: str, median_seconds: float) -> OwnThread | None:
    """Give a long model a thread of its own; None means that the model is short and runs on the event loop."""
    if is_short(median_seconds):
        return None
    return OwnThread(name=name, median_seconds=median_seconds)


def is_short(median_seconds: float) -> bool:
    """Say if a run is short enough for the event loop."""
    return median_seconds < INLINE_LIMIT_SECONDS
