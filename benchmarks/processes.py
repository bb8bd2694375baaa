"""A server as all its processes: what they use together, and that none is left behind.

Some servers are one process; others start workers, a manager, a resource tracker, and not all of them end these.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

STOP_SECONDS = 30.0


def family(pid: int) -> list[psutil.Process]:
    """The process and all that it started, and these started, and so on; empty where it has ended."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Seconds of CPU that these processes have used so far, all their threads together; ended ones count nothing."""
    used = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system
    return used


def memory_bytes(processes: Sequence[psutil.Process]) -> int | None:
    """Memory that these processes would take if they were alone on the computer; None where that is unknown.

    PSS divides a page among all that share it, so a server beside others of the same environment would look smaller
    than one with libraries of its own. Here a file's shared pages count once for the whole server (the most that any
    of its processes has of it), whoever else has them; what processes share by a fork counts by PSS, for nobody else
    can have it. It is Linux that knows all this, in /proc/PID/smaps.
    """
    if not Path("/proc/self/smaps").exists():
        return None
    private, shared = 0, Counter[str]()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for mapped in process.memory_maps():
                if mapped.path.startswith("/"):
                    private += mapped.private_clean + mapped.private_dirty
                    shared[mapped.path] = max(shared[mapped.path], mapped.shared_clean + mapped.shared_dirty)
                else:
                    private += mapped.pss
    return private + shared.total()


def stop(processes: Sequence[psutil.Process], patience: float = STOP_SECONDS) -> None:
    """Ask the first, which started the others, to end; end what is left after that."""
    if not processes:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        processes[0].terminate()
    psutil.wait_procs(processes[:1], timeout=patience)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=patience)
