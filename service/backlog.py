"""Work that can wait, done in a thread of its own: who hands it over never waits, and what is too much is dropped.

`queue.SimpleQueue` is written in C, so that handing over takes no lock of ours, and may happen in a signal handler or
while garbage is collected. The thread is a daemon: one that hangs in a system call does not keep the process alive.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

# Python gives a thread that has just let go of the interpreter all of it again, if it wants it soon: others wait long.
REST_SECONDS = 50e-6

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """At most `waiting` items wait, at most `at_once` are done together.

    After an item has come to an empty queue the thread waits for `gather_seconds`, so that many that come soon after
    one another wake it once. While it is busy it rests for `REST_SECONDS` after each time.
    """

    waiting: int
    at_once: int
    gather_seconds: float


class Backlog(Generic[Item]):
    """A queue of items, and the thread that does them; `num_dropped` of them were not, for whatever reason."""

    def __init__(self, name: str, work: Callable[[list[Item]], None], bounds: Bounds) -> None:
        self._waiting: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._work = work
        self._bounds = bounds
        self._most = bounds.waiting
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
        """Whether it is at most half full."""
        return self._waiting.qsize() <= self._bounds.waiting // 2

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
        while items := self._take():
            try:
                self._work(items)
            except Exception:  # noqa: BLE001 - whatever it is, the next ones can be done
                self.num_dropped += len(items)

    def _take(self) -> list[Item]:
        """Wait for items; none at all is the end."""
        was_empty = self._waiting.empty()
        items = [self._waiting.get()]
        self._closing.wait(self._bounds.gather_seconds if was_empty else REST_SECONDS)
        while len(items) < self._bounds.at_once and items[-1] is not None and not self._waiting.empty():
            items.append(self._waiting.get())
        found = [item for item in items if item is not None]
        if found and len(found) < len(items):
            self._waiting.put(None)  # the end comes after these
        return found
