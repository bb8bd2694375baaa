"""The service with a wall clock that jumps about by days at every look: `python -m tests.faults.jumping_clock …`.

Python's clock is replaced, not the computer's, which belongs to others too.
"""

from __future__ import annotations

import itertools
import runpy
import sys
import time

DAY_SECONDS = 86_400.0
JUMPS = itertools.cycle((0.0, -1000 * DAY_SECONDS, 1000 * DAY_SECONDS, -1.0))
now = time.time


def jump() -> float:
    """Give some time or other."""
    return now() + next(JUMPS)


if __name__ == "__main__":
    time.time = jump
    sys.argv[0] = "service"
    runpy.run_module("service", run_name="__main__", alter_sys=True)
