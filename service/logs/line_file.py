"""A file to which lines go, standard output as a rule: who has a line to write does not wait until it is written.

A pipe that nobody reads stops its writer, for good. Here that is a thread of its own: then lines pile up, to a limit,
and what is beyond it is dropped and counted, and said in a line once there is room. Who reads a pipe may also be gone:
then nothing is written any more, quietly.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable

from service.backlog import Backlog, Bounds
from service.logs.formats import Line
from service.logs.remarks import Remark

BOUNDS = Bounds(waiting=10_000, at_once=4, gather_seconds=0.02)  # four lines are some 50 µs of the interpreter's time
PIPE_BYTES = 4096  # what Linux writes to a pipe in one piece: lines of several processes do not mix
GONE = frozenset({errno.EPIPE, errno.EBADF})
LOOK_SECONDS = 0.1
CLOSE_SECONDS = 1.0


class LineFile:
    """A file descriptor, which stays open, and the thread that writes to it."""

    def __init__(self, descriptor: int, write_line: Callable[[Line], bytes], bounds: Bounds = BOUNDS) -> None:
        self._descriptor = descriptor
        self._write_line = write_line
        self._is_broken_off = False  # in the middle of a line
        self._num_lost = 0
        self._num_told = 0
        self._backlog = Backlog("log", self._write, bounds)
        self.put = self._backlog.put  # hands a line over, and returns at once

    @property
    def num_dropped(self) -> int:
        """How many lines were not written."""
        return self._backlog.num_dropped + self._num_lost

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Write what is there, if that takes no longer; say if it is written."""
        return self._backlog.close(seconds)

    def _write(self, lines: list[Line]) -> None:
        """Write lines, as many in one piece as go into it."""
        piece, num_lines = b"", 0
        for line in map(self._write_line, lines):
            if piece and len(piece) + len(line) > PIPE_BYTES:
                self._send(piece, num_lines)
                piece, num_lines = b"", 0
            piece, num_lines = piece + line, num_lines + 1
        self._send(piece, num_lines)
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        dropped = self.num_dropped
        if dropped > self._num_told and self._backlog.is_calm:
            num_lines, self._num_told = dropped - self._num_told, dropped
            self._send(self._write_line(missing_lines("lines_dropped", num_lines, "nobody took them in time")), 0)

    def _send(self, piece: bytes, num_lines: int) -> None:
        """Write a piece, however long that takes; what can not be written is lost."""
        try:
            self._write_whole(memoryview(b"\n" + piece if self._is_broken_off else piece))
        except OSError as err:
            self._num_lost += num_lines
            if err.errno in GONE:
                self._backlog.refuse()

    def _write_whole(self, left: memoryview) -> None:
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # whoever else has the file open wants it so
                select.select((), (self._descriptor,), (), LOOK_SECONDS)
            self._is_broken_off = bool(left)


def missing_lines(event: str, num_lines: int, why: str) -> Remark:
    """Say how many lines are missing here."""
    return Remark(time.time_ns(), "warning", event, f"{num_lines} log lines are missing: {why}", num_lines=num_lines)
