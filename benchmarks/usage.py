"""Who used the processors while something was measured: the server, or others, who make a number doubtful.

The server's own seconds a request say what a request costs even where others slow the clock. Linux only, from /proc;
elsewhere nothing is known and nothing is said.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Seconds by the clock; of all cores together (what the hypervisor took included); of the server; of ourselves."""

    clock: float
    busy: float
    server: float
    ours: float

    def __sub__(self, before: Usage) -> Usage:
        return Usage(
            clock=self.clock - before.clock,
            busy=self.busy - before.busy,
            server=self.server - before.server,
            ours=self.ours - before.ours,
        )

    @property
    def cores_of_others(self) -> float:
        """How many cores neither the server nor we kept busy, on average."""
        return max(0.0, (self.busy - self.server - self.ours) / self.clock)


def read_usage(server_pid: int) -> Usage | None:
    """Read the counters. Ours are those of this process and of the children that it has waited for."""
    if not STAT.exists():
        return None
    tick = 1 / os.sysconf("SC_CLK_TCK")
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, STAT.read_text().splitlines()[0].split()[1:9])
    # The second field, the name, may hold blanks: count from its closing parenthesis.
    server = (STAT.parent / str(server_pid) / "stat").read_text().rpartition(")")[2].split()
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return Usage(
        clock=time.monotonic(),
        busy=(user + nice + system + irq + softirq + steal) * tick,
        server=(int(server[11]) + int(server[12])) * tick,
        ours=sum(usage.ru_utime + usage.ru_stime for usage in (own, children)),
    )
