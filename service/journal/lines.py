"""Lines on their way out, to a file descriptor: written in the background, so that whoever says something never waits.

A pipe that nobody reads, a full disk or a slow terminal costs lines, and nothing else. Once there is room again a line
says how many.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

from service.journal.background import MAX_WAITING, Background

# Makes a line, with its newline.
Render = Callable[[], bytes]


class Lines:
    """The lines that wait for one file descriptor."""

    def __init__(
        self, descriptor: int, tell_dropped: Callable[[int], bytes], *, max_waiting: int = MAX_WAITING
    ) -> None:
        self._descriptor = descriptor
        self._tell_dropped = tell_dropped
        self._background = Background("log", max_waiting=max_waiting)
        self._num_told = 0
        self._is_gone = False  # who read has closed

    @property
    def num_dropped(self) -> int:
        """How many lines never got out, as too many waited."""
        return self._background.num_dropped

    def put(self, render: Render) -> None:
        """Have a line rendered and written, soon; or not, if too many wait."""
        self._background.put(partial(self._write, render))

    def close(self) -> None:
        """Write what waits, if that takes no longer than a moment."""
        self._background.close()

    def _write(self, render: Render) -> None:
        missing = self.num_dropped - self._num_told
        if missing:
            self._num_told += missing
            self._write_bytes(self._tell_dropped(missing))
        self._write_bytes(_render(render))

    def _write_bytes(self, content: bytes) -> None:
        while content and not self._is_gone:
            try:
                content = content[os.write(self._descriptor, content) :]
            except BlockingIOError:  # somebody has made it non-blocking
                time.sleep(0.01)
            except OSError:
                self._is_gone = True


def _render(render: Render) -> bytes:
    try:
        return render()
    except Exception as err:  # noqa: BLE001 - one line that can not be written is no reason to write no more
        return f"a log line could not be written: {err!r}\n".encode()
