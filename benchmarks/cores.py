"""Which core a process runs on: the server on one, the load on another, where the system has two and allows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def server_core() -> int | None:
    """The core for the server, or None where it can not be kept apart from the load."""
    return _first_two()[0]


def load_core() -> int | None:
    """The core for the load, or None where it can not be kept apart from the server."""
    return _first_two()[1]


def _first_two() -> tuple[int, int] | tuple[None, None]:
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Keep this thread, and the processes that it starts meanwhile, on one core; None leaves them free."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
