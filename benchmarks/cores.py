"""Which cores a process runs on: a server's on some, the load on another, where there are enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def server_cores(workers: int = 1) -> frozenset[int] | None:
    """The cores for so many workers of a server, or None where they can not be kept apart from the load."""
    cores = _allowed()
    return frozenset(cores[:workers]) if len(cores) > workers else None


def load_cores(workers: int = 1) -> frozenset[int] | None:
    """The core for the load on so many workers, or None where it can not be kept apart from them."""
    cores = _allowed()
    return frozenset({cores[workers]}) if len(cores) > workers else None


def _allowed() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def on_cores(cores: frozenset[int] | None) -> Iterator[None]:
    """Keep this thread, and the processes that it starts meanwhile, on these cores; None leaves them free."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
