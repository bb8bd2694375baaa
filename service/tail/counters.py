"""What Linux counts for a thread: how long it ran, how long it waited for a CPU, its page faults.

Sources: clock_gettime on the thread's own CPU clock (nanoseconds), proc_schedstat(5)'s run delay (nanoseconds),
getrusage(2) (counts), and for the whole machine the steal time of proc_stat(5) (ticks of 10 ms, as a rule). Where one
of them is missing, on another system or in a sandbox, it counts nothing.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

MACHINE = Path("/proc/stat")
STEAL_FIELD = 8  # of the line "cpu", the word itself being 0
NUM_TOUCHED_PAGES = 64


class Sample(NamedTuple):
    """The counters at one time: `at` by time.perf_counter, `ran` and `waited` (for a CPU) in seconds, the rest counts.

    `process_ran` is the sum over all threads of the process.

    All of them only grow: what lies between two samples is their difference.
    """

    at: float
    ran: float = 0.0
    process_ran: float = 0.0
    waited: float = 0.0
    minor_faults: int = 0
    major_faults: int = 0
    preemptions: int = 0

    def since(self, earlier: Sample) -> Sample:
        """Give what was counted since an earlier sample."""
        return Sample._make(now - before for before, now in zip(earlier, self, strict=True))


class Readable(Protocol):
    """What can be sampled."""

    @property
    def knows_waiting(self) -> bool:
        """Whether the waiting for a CPU is counted."""

    def read(self) -> Sample:
        """Take a sample."""

    def close(self) -> None:
        """Read no more."""


class Counters:
    """The counters of one thread. Page faults and preemptions are those of `who`: this thread, or the process.

    `source` says where the waiting for a CPU is read, or is None where nothing says it.
    """

    def __init__(self, clock: int, source: int | None, read_usage: Callable[[], Any]) -> None:
        self._clock = clock
        self._source = source
        self._read_usage = read_usage

    @property
    def knows_waiting(self) -> bool:
        """Whether the waiting for a CPU is counted here."""
        return self._source is not None

    def read(self) -> Sample:
        """Read them all: four system calls, 2 to 4 µs."""
        usage = self._read_usage()
        return Sample(
            time.perf_counter(),
            time.clock_gettime(self._clock),
            time.process_time(),
            self._read_waited(),
            usage.ru_minflt,
            usage.ru_majflt,
            usage.ru_nivcsw,
        )

    def close(self) -> None:
        """Close the file."""
        if self._source is not None:
            os.close(self._source)
            self._source = None

    def _read_waited(self) -> float:
        if self._source is None:
            return 0.0
        return int(os.pread(self._source, 64, 0).split()[1]) * 1e-9


class NoCounters:
    """What there is where Linux is not: the time."""

    knows_waiting = False

    def read(self) -> Sample:
        """Tell the time."""
        return Sample(time.perf_counter())

    def close(self) -> None:
        """Nothing is open."""


def open_counters(ident: int, native_id: int, *, alone: bool) -> Readable:
    """Open the counters of a thread of this process, named as `threading.Thread` does.

    With `alone` it is the calling thread, whose page faults are told from those of the process.
    """
    if sys.platform != "linux":
        return NoCounters()
    import resource  # not everywhere

    who = resource.RUSAGE_THREAD if alone else resource.RUSAGE_SELF
    source = _open(Path(f"/proc/self/task/{native_id}/schedstat"))
    return Counters(time.pthread_getcpuclockid(ident), source, lambda: resource.getrusage(who))


def read_steal_seconds() -> float:
    """Say for how long, in sum over all CPUs, the machine's host gave them to others; 0 where nobody knows."""
    try:
        with MACHINE.open("rb") as file:
            return int(file.readline().split()[STEAL_FIELD]) * tick_seconds()
    except (OSError, IndexError, ValueError):
        return 0.0


def tick_seconds() -> float:
    """How long the tick is in which steal time is counted."""
    return 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01


def measure_fault_seconds(counters: Readable) -> float:
    """Measure what a minor page fault costs the calling thread here: from 0.1 µs to some µs, on virtual machines."""
    with mmap.mmap(-1, NUM_TOUCHED_PAGES * mmap.PAGESIZE) as memory:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        before = counters.read()
        for place in range(0, len(memory), mmap.PAGESIZE):
            memory[place] = 1
        after = counters.read()
    return (after.ran - before.ran) / max(1, after.minor_faults - before.minor_faults)


def _open(path: Path) -> int | None:
    try:
        source = os.open(path, os.O_RDONLY)
        int(os.pread(source, 64, 0).split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return source
