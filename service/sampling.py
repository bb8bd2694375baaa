"""One in so many, and no more than so many a second: how much of what happens is written down."""

from __future__ import annotations

import math

WHOLE = 1 << 32


class Share:
    """Chooses a share of what happens, evenly spread, the first one included: of 0.01 each hundredth.

    It counts, and draws nothing. From several threads at once it may count one too few.
    """

    def __init__(self, share: float) -> None:
        self._step = math.ceil(share * WHOLE)
        self._sum = WHOLE - self._step

    def chooses(self) -> bool:
        """Say if this one is chosen."""
        self._sum += self._step
        if self._sum < WHOLE or not self._step:
            return False
        self._sum -= WHOLE
        return True


class Budget:
    """Lets so many pass in each second, by `time.perf_counter`, and counts those that it does not."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = 0
        self._until = 0.0
        self.num_refused = 0

    def admits(self, now: float) -> bool:
        """Say if this one may pass."""
        if now >= self._until:
            self._until = now + 1.0
            self._left = self._per_second
        if self._left:
            self._left -= 1
            return True
        self.num_refused += 1
        return False
