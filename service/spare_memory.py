"""Gives memory back to the system that is not needed for long: what loading left over, what long bodies took.

glibc keeps freed memory for later, which here never comes: a worker that has started allocates little. Other C
libraries have no such calls, and nothing happens there.
"""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 256 * 1024


def give_back() -> None:
    """Return what is free to the system, where the C library can."""
    trim = _find("malloc_trim")
    if trim is not None:
        trim(0)


def keep_large_apart() -> None:
    """Take large pieces of memory from the system one by one, so that each goes back when it is free.

    By itself glibc stops doing so for all that is as large as the largest that was ever freed, up to 32 MiB: after one
    long body it would keep as much for every thread that reads.
    """
    set_option = _find("mallopt")
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, LARGE_BYTES)


def _find(name: str) -> ctypes._NamedFuncPointer | None:
    try:
        found: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None
    return found
