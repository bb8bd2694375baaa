"""Gives back to the system what loading has left over: the models were compared on megabytes of instances.

glibc keeps freed memory for later, which here never comes: a worker that has started allocates little. Other C
libraries have no such call, and nothing happens there.
"""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return what is free to the system, where the C library can."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return
    trim(0)
