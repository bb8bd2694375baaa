"""Work that nobody waits for: a bounded queue and one thread, so that whoever gives it goes on at once.

Whatever holds up the thread holds up nothing else. When the queue is full, work is dropped and counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

MAX_WAITING = 10_000
CLOSE_SECONDS = 1.0


class Background:
    """Does what it is given, one after the other. `num_dropped` counts what it never got to."""

    def __init__(self, name: str, *, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._waiting: deque[Callable[[], object]] = deque()
        self._filled = threading.Event()
        self._closing = False
        self.num_dropped = 0
        # A daemon: a process whose log nobody reads must be able to end.
        self._thread = threading.Thread(target=self._do_all, name=name, daemon=True)
        self._thread.start()

    def put(self, work: Callable[[], object]) -> None:
        """Have something done, soon; or not, if too much waits. It must not raise."""
        if len(self._waiting) >= self._max_waiting:
            self.num_dropped += 1
            return
        self._waiting.append(work)
        if not self._filled.is_set():
            self._filled.set()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Do what waits, if that is a matter of so many seconds."""
        self._closing = True
        self._filled.set()
        self._thread.join(seconds)

    def _do_all(self) -> None:
        while not (self._closing and not self._waiting):
            self._filled.wait()
            self._filled.clear()
            while self._waiting:
                self._waiting.popleft()()
