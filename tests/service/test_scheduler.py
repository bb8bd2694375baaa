"""Where predictions run, and what happens when too many wait."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from service.errors import Overloaded
from service.protocols.http_errors import answer_error
from service.scheduler import (
    MAX_INLINE_SECONDS,
    MIN_INLINE_SECONDS,
    PATIENCE,
    WORTH_HOPS,
    OwnThread,
    Tick,
    measure_inline_limit,
)


def test_how_long_a_run_may_hold_up_the_loop_is_measured_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MIN_INLINE_SECONDS <= asyncio.run(measure_inline_limit()) <= MAX_INLINE_SECONDS
    monkeypatch.setattr("service.scheduler.MIN_INLINE_SECONDS", 0.0)
    monkeypatch.setattr("service.scheduler.MAX_INLINE_SECONDS", 60.0)
    limit = asyncio.run(measure_inline_limit())
    monkeypatch.setattr("service.scheduler.WORTH_HOPS", 1000 * WORTH_HOPS)
    assert 0.0 < limit < asyncio.run(measure_inline_limit())


def test_calls_run_one_after_the_other_in_one_thread_that_is_not_the_loops() -> None:
    async def main() -> list[Any]:
        thread = OwnThread(name="m", median_seconds=0.01)
        seen = await asyncio.gather(*(thread.submit(threading.get_ident) for _ in range(5)))
        thread.close()
        return seen

    assert len(set(asyncio.run(main()))) == 1
    assert asyncio.run(main())[0] != threading.get_ident()


def test_beyond_the_bound_a_call_is_refused_at_once_and_told_when_to_come_back() -> None:
    async def main() -> Overloaded:
        thread = OwnThread(name="m", median_seconds=2.0, max_waiting=2)
        release = threading.Event()
        calls = [thread.submit(release.wait), thread.submit(release.wait)]
        with pytest.raises(Overloaded) as caught:
            thread.submit(release.wait)
        release.set()
        await asyncio.gather(*calls)
        await asyncio.sleep(0.05)
        await thread.submit(release.wait)  # there is room again
        thread.close()
        return caught.value

    answer = answer_error(asyncio.run(main()))
    assert answer.status == 429
    assert answer.headers == ((b"retry-after", b"4"),)


def test_a_cancelled_call_that_has_not_begun_never_does() -> None:
    async def main() -> bool:
        thread = OwnThread(name="m", median_seconds=0.01)
        release, ran = threading.Event(), threading.Event()
        first, second = thread.submit(release.wait), thread.submit(ran.set)
        second.cancel()
        await asyncio.sleep(0)  # asyncio passes a cancellation on in its next turn
        release.set()
        await first
        await thread.submit(release.wait)
        thread.close()
        return ran.is_set()

    assert not asyncio.run(main())


class Crowd:
    """Numbers that are squared in ticks, and how many were squared at once each time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.tick: Tick[int, int] = Tick(self._run)

    def _run(self, items: Sequence[int]) -> list[int]:
        self.sizes.append(len(items))
        return [item * item for item in items]


def test_one_by_one_each_is_run_where_it_arrives() -> None:
    async def main() -> tuple[list[int | None], list[int]]:
        crowd, results = Crowd(), []
        for item in range(1, 6):
            results.append(crowd.tick.add(item, print))
            await asyncio.sleep(0)
        return results, crowd.sizes

    assert asyncio.run(main()) == ([1, 4, 9, 16, 25], [1] * 5)


def test_what_arrives_in_one_tick_is_run_together_and_delivered_once() -> None:
    async def main() -> tuple[list[tuple[int, int]], list[int]]:
        crowd, delivered = Crowd(), []

        def deliver_to(item: int) -> Callable[[int], None]:
            return lambda result: delivered.append((item, result))

        for _ in range(2):
            for item in range(1, 6):
                result = crowd.tick.add(item, deliver_to(item))
                if result is not None:
                    deliver_to(item)(result)
            await asyncio.sleep(0)
        return delivered, crowd.sizes

    delivered, sizes = asyncio.run(main())
    assert delivered == [(item, item * item) for item in range(1, 6)] * 2
    assert sizes == [1, 4, 5]


def test_when_the_crowd_has_gone_each_is_run_where_it_arrives_again() -> None:
    async def main() -> list[bool]:
        crowd = Crowd()
        for _ in range(2):
            crowd.tick.add(1, lambda _: None)
        await asyncio.sleep(0)
        at_once = []
        for _ in range(PATIENCE + 2):
            at_once.append(crowd.tick.add(1, lambda _: None) is not None)
            await asyncio.sleep(0)
        return at_once

    at_once = asyncio.run(main())
    assert at_once[-1]
    assert not at_once[0]
    assert at_once == sorted(at_once)


class Body:
    """Something large that a call is to work on."""


def test_a_call_that_is_withdrawn_leaves_nothing_behind() -> None:
    async def main() -> tuple[bool, int]:
        thread = OwnThread(name="m", median_seconds=0.01, max_waiting=3)
        release = threading.Event()
        first = thread.submit(release.wait)
        body = Body()
        left = weakref.ref(body)
        for _ in range(1000):
            thread.submit(print, body).cancel()
            await asyncio.sleep(0)
        del body
        gone, num_told = left() is None, thread._executor._work_queue.qsize()
        release.set()
        await first
        thread.close()
        return gone, num_told

    gone, num_told = asyncio.run(main())
    assert gone
    assert num_told <= 3


def test_what_waits_behind_a_withdrawn_call_is_run() -> None:
    async def main() -> list[int]:
        thread = OwnThread(name="m", median_seconds=0.01)
        release = threading.Event()
        thread.submit(release.wait)
        calls = [thread.submit(int, str(number)) for number in range(6)]
        for call in calls[::2]:
            call.cancel()
        await asyncio.sleep(0)
        calls.append(thread.submit(int, "6"))
        release.set()
        results = [await call for call in calls if not call.cancelled()]
        thread.close()
        return results

    assert asyncio.run(main()) == [1, 3, 5, 6]


def test_what_a_call_raises_is_raised_where_it_is_awaited() -> None:
    async def main() -> None:
        thread = OwnThread(name="m", median_seconds=0.01)
        with pytest.raises(ZeroDivisionError):
            await thread.submit(divmod, 1, 0)
        assert await thread.submit(divmod, 7, 2) == (3, 1)
        thread.close()

    asyncio.run(main())
