"""Who used the processors while something was measured: the server, or others, who make a number doubtful.

The server's own seconds a request say what a request costs even where others slow the clock.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

import psutil

from benchmarks.processes import cpu_seconds, family

# What a core does that is work, by anybody; "steal" is what the hypervisor gave to other machines. Linux has all.
WORK = ("user", "nice", "system", "irq", "softirq", "steal")


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


def read_usage(server_pid: int) -> Usage:
    """Read the counters. Ours are those of this process and of the children that it has waited for."""
    all_cores = psutil.cpu_times()
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return Usage(
        clock=time.monotonic(),
        busy=sum(getattr(all_cores, kind, 0.0) for kind in WORK),
        server=cpu_seconds(family(server_pid)),
        ours=sum(usage.ru_utime + usage.ru_stime for usage in (own, children)),
    )
