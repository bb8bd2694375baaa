"""Where predictions run, and what happens when too many wait."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from service.errors import Overloaded
from service.protocols.http_errors import answer_error
from service.scheduler import INLINE_LIMIT_SECONDS, OwnThread, choose_thread


def test_a_short_model_stays_on_the_loop_and_a_long_one_gets_a_thread() -> None:
    assert choose_thread("short", INLINE_LIMIT_SECONDS / 2) is None
    thread = choose_thread("long", INLINE_LIMIT_SECONDS * 2)
    assert thread is not None
    thread.close()


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
