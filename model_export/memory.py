"""Gives freed memory back to the system: glibc keeps it for itself, and two large models in a row then count twice."""

from __future__ import annotations

import ctypes
import gc
import sys

LARGE_BYTES = 4 * 2**20
M_MMAP_THRESHOLD = -3  # in malloc.h


def keep_large_memory_apart() -> None:
    """Let large arrays have pages of their own, which go back at once: by itself glibc stops that as they grow."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def release_memory() -> None:
    """Collect graphs, whose nodes and values hold one another, then return what is free."""
    gc.collect()
    return_memory()


def return_memory() -> None:
    """Ask glibc to return what is free."""
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
