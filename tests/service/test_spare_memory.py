"""What loading has left over goes back to the system."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from typing import Any

import pytest

from service.spare_memory import give_back

PROGRAM = """
import ctypes
from pathlib import Path
from service.spare_memory import give_back

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

pieces = [bytes(1000) for _ in range(100_000)]
keep = bytes(1000)
del pieces
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed, and can be told")
def test_memory_that_was_freed_is_given_back() -> None:
    shown = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(shown.stdout) > 50_000  # kB, of the 100 MB that were freed below something that is kept


def test_where_the_c_library_can_not_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(_: Any) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", without)
    give_back()
