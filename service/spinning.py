"""Stays awake for a moment after an answer, where the next request usually comes in that moment.

A thread that sleeps until a request comes is woken late and finds its caches cold: of a lone request to a small network
that is a third of the latency, and no less CPU time than staying awake for it. A client that asks in a loop asks again
within 200 µs, the time that Linux's guests poll for before they halt a CPU (`cpuidle-haltpoll`). For clients that come
later it would be time burnt. So it is learned: as long as the next request comes while we are awake, we stay awake
after each answer; after `PATIENCE` vain attempts we go to sleep at once, and try again after every `RETRY`th answer.
"""

from __future__ import annotations

import asyncio
import time

PATIENCE = 8
RETRY = 64


class Spinning:
    """Whether the event loop, whose thread calls all of this, is kept awake. `seconds` is how long; 0 is never."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = 0.0  # awake until then; 0 is asleep
        self._patience = PATIENCE
        self._num_answers = 0
        self._turning = False

    def arrived(self) -> None:
        """A request is here. If we were awake for it, it was worth it."""
        if self._until:
            self._until = 0.0
            self._patience = PATIENCE

    def answered(self) -> None:
        """It has been answered: stay awake for the next one, if that may be worth it."""
        self._num_answers += 1
        if self._seconds and (self._patience or not self._num_answers % RETRY):
            self._until = time.perf_counter() + self._seconds
            if not self._turning:
                self._turning = True
                asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Let the loop look for requests once more, without sleeping."""
        if time.perf_counter() < self._until:
            asyncio.get_running_loop().call_soon(self._turn)
            return
        self._turning = False
        if self._until:
            self._until = 0.0
            self._patience = max(0, self._patience - 1)
