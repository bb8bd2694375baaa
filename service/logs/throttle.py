"""A limit of lines a second: nobody fills a disk by asking often. What is left out is counted, and said in a line."""

from __future__ import annotations

from collections.abc import Callable

from service.logs.formats import Line
from service.logs.line_file import missing_lines
from service.sampling import Budget


class Throttle:
    """Hands so many lines a second on."""

    def __init__(self, put: Callable[[Line], None], per_second: int) -> None:
        self._put = put
        self._budget = Budget(per_second)
        self._per_second = per_second
        self._num_told = 0

    @property
    def num_left_out(self) -> int:
        """How many lines were more than the limit."""
        return self._budget.num_refused

    def put(self, line: Line, now: float) -> None:
        """Hand a line on, or leave it out; `now` is by `time.perf_counter`."""
        if self._budget.admits(now):
            if self._budget.num_refused != self._num_told:
                self._tell()
            self._put(line)

    def _tell(self) -> None:
        num_lines, self._num_told = self._budget.num_refused - self._num_told, self._budget.num_refused
        self._put(missing_lines("lines_left_out", num_lines, f"there were more than {self._per_second} in a second"))
