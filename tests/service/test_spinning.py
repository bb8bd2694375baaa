"""Staying awake after an answer is learned: it stops where it is in vain, and comes back where it pays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.spinning import PATIENCE, RETRY, Spinning

MOMENT = 0.002


class Loop:
    """The event loop, with a count of the turns that were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns = 0
        self._turn = Spinning._turn
        monkeypatch.setattr(Spinning, "_turn", self._count)

    @property
    def _count(self) -> Callable[[Spinning], None]:
        def turn(spinning: Spinning) -> None:
            self.turns += 1
            self._turn(spinning)

        return turn

    async def turns_after(self, spinning: Spinning, seconds: float) -> int:
        """Answer once, wait, and count the turns."""
        self.turns = 0
        spinning.answered()
        await asyncio.sleep(seconds)
        return self.turns


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    return Loop(monkeypatch)


def run(main: Callable[[], Any]) -> Any:
    return asyncio.run(main())


def test_after_an_answer_the_loop_turns_for_a_moment_and_no_longer(loop: Loop) -> None:
    async def main() -> tuple[int, int]:
        spinning = Spinning(MOMENT)
        during = await loop.turns_after(spinning, 5 * MOMENT)
        before = loop.turns
        await asyncio.sleep(5 * MOMENT)
        return during, loop.turns - before

    during, afterwards = run(main)
    assert during > 2
    assert afterwards == 0


def test_where_nobody_comes_in_time_it_stops_and_tries_again_now_and_then(loop: Loop) -> None:
    async def main() -> list[bool]:
        spinning = Spinning(MOMENT)
        return [await loop.turns_after(spinning, 2 * MOMENT) > 0 for _ in range(PATIENCE + 2 * RETRY)]

    awake = run(main)
    assert all(awake[:PATIENCE])
    assert [place for place, is_awake in enumerate(awake, start=1) if is_awake and place > PATIENCE] == [
        RETRY,
        2 * RETRY,
    ]


def test_where_the_next_request_comes_in_time_it_goes_on_for_ever(loop: Loop) -> None:
    async def main() -> list[bool]:
        spinning = Spinning(10.0)
        awake = []
        for _ in range(3 * PATIENCE):
            awake.append(await loop.turns_after(spinning, MOMENT) > 0)
            spinning.arrived()
        return awake

    assert all(run(main))


def test_one_that_comes_in_time_brings_it_back(loop: Loop) -> None:
    async def main() -> list[bool]:
        spinning = Spinning(MOMENT)
        for _ in range(RETRY - 1):
            await loop.turns_after(spinning, 1.5 * MOMENT)
        spinning.answered()  # the retry
        await asyncio.sleep(0)
        spinning.arrived()
        return [await loop.turns_after(spinning, 1.5 * MOMENT) > 0 for _ in range(PATIENCE + 1)]

    assert run(main) == [True] * PATIENCE + [False]


def test_many_answers_in_one_turn_are_followed_by_one_turn(loop: Loop) -> None:
    async def main() -> int:
        spinning = Spinning(10.0)
        for _ in range(100):
            spinning.answered()
            spinning.arrived()
        spinning.answered()
        await asyncio.sleep(0)
        return loop.turns

    assert run(main) == 1


def test_zero_is_never(loop: Loop) -> None:
    async def main() -> int:
        return await loop.turns_after(Spinning(0.0), MOMENT)

    assert run(main) == 0
