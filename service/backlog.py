"""Work that can wait, done in a thread of its own: who hands it over never waits, and what is too much is dropped.

`queue.SimpleQueue` is written in C, so that handing over takes no lock of ours, and may happen in a signal handler or
while garbage is collected. The thread is a daemon: one that hangs in a system call does not keep the process alive.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

GATHER_SECONDS = 0.02

Item = TypeVar("Item")


class Backlog(Generic[Item]):
    """A queue of at most `most` items, and the thread that does them, at most `at_once` a time.

    After an item has come the thread waits for a moment, so that many that come together wake it once.
    """

    def __init__(self, name: str, work: Callable[[list[Item]], None], *, most: int, at_once: int) -> None:
        self._waiting: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._work = work
        self._most = most
        self._calm = most // 2
        self._at_once = at_once
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.num_dropped = 0
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand an item over; if too many wait, or it is closed, drop it and count it."""
        if self._waiting.qsize() < self._most:
            self._waiting.put(item)
        else:
            self.num_dropped += 1

    @property
    def is_calm(self) -> bool:
        """Whether it is less than half full."""
        return self._waiting.qsize() <= self._calm

    def refuse(self) -> None:
        """Drop whatever comes from now on."""
        self._most = 0

    def close(self, seconds: float) -> bool:
        """Take no more, and wait that long for what is there to be done; say if it is."""
        self.refuse()
        self._closing.set()
        self._waiting.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        item = self._waiting.get()
        while item is not None:
            self._closing.wait(GATHER_SECONDS)
            item = self._do(item)

    def _do(self, item: Item) -> Item | None:
        """Do all that is there, and give the next that comes; None at the end."""
        items = [item]
        while True:
            following = self._take(items)
            self._work(items)
            ...
