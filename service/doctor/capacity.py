"""How much of the machine there is for the server: cores, memory, open files, and a place for temporary ones."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path

from service.doctor.cgroup import Limits
from service.doctor.finding import Finding, note, ok, wrong
from service.doctor.surroundings import Surroundings

WORKER_BYTES = 256 << 20  # Python, numpy and ONNX Runtime, with a small network
OTHER_FILES = 64  # what a process has open beside its connections
USUAL_CONNECTIONS = 960


def count_cores() -> int:
    """Count the cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def check_cores(limits: Limits, num_cores: int, workers: int) -> list[Finding]:
    """Is there a core for each worker?"""
    name = "cores"
    usable = min(num_cores, limits.cores or num_cores)
    quota = "no quota" if limits.cores is None else f"a quota of {limits.cores:g}"
    words = f"{num_cores} to run on, {quota}; {workers} worker{'s' if workers > 1 else ''}"
    if usable < workers:
        step = f"--workers {max(1, int(usable))}, or more cores"
        return [note(name, words, "workers wait for one another: the slowest answers become slower", step)]
    if limits.num_throttled:
        meaning = f"the quota ran out {limits.num_throttled:,} times; each time, requests waited up to 0.1 s"
        return [note(name, words, meaning, "raise the container's CPU limit, or take it away and keep the request")]
    return [ok(name, words)]


def check_memory(surroundings: Surroundings, limits: Limits, workers: int) -> list[Finding]:
    """Is there memory for each worker?"""
    available = _read_available(surroundings)
    found = [amount for amount in (available, limits.free_bytes) if amount is not None]
    if not found:
        return []
    name, free = "memory", min(found)
    tight = limits.free_bytes is not None and free == limits.free_bytes
    words = f"{free >> 20:,} MiB are free{' below the limit of the container' if tight else ''}"
    if free >= workers * WORKER_BYTES:
        return [ok(name, words)]
    meaning = f"a worker with a small network takes some {WORKER_BYTES >> 20} MiB; the kernel may end the server"
    return [note(name, words, meaning, "raise the container's memory limit, or serve with fewer workers")]


def count_open_files() -> int:
    """Count the files and connections that this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def check_open_files(limit: int, connections: int = USUAL_CONNECTIONS) -> list[Finding]:
    """Can the server have so many connections open?"""
    name, words = "open files", f"{limit:,} at once (ulimit -n)" if limit != resource.RLIM_INFINITY else "no limit"
    if limit == resource.RLIM_INFINITY or limit >= connections + OTHER_FILES:
        return [ok(name, words)]
    meaning = f"a connection takes one: at most {max(0, limit - OTHER_FILES):,} clients at once"
    step = f"ulimit -n {connections + OTHER_FILES}; in containers --ulimit nofile=…, in systemd LimitNOFILE="
    return [note(name, words, meaning, step)]


def check_temporary(workers: int, folder: Path | None = None) -> list[Finding]:
    """Is there a place for temporary files? Several workers put their metrics together there."""
    name = "temporary files"
    try:
        place = folder or Path(tempfile.gettempdir())
        with tempfile.TemporaryFile(dir=place):
            return [ok(name, f"can be written in {place}")]
    except OSError as err:
        severity = wrong if workers > 1 else note
        meaning = "several workers put their metrics together there; one worker needs none"
        step = "mount one (docker run --tmpfs /tmp), or name one by TMPDIR"
        return [severity(name, f"none can be written: {err.strerror}", meaning, step)]


def _read_available(surroundings: Surroundings) -> int | None:
    for line in surroundings.read(surroundings.proc / "meminfo").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) << 10
    return None
