"""Where the doctor looks: the folders in which Linux describes the machine, and the environment of the process.

Tests look elsewhere. Of the environment the doctor reads what other software takes from it, CUDA above all; the
server's own settings are read by `settings`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The machine as it is seen from here."""

    environment: Mapping[str, str]
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")

    def read(self, path: Path) -> str:
        """Give the text of a file that the kernel writes; empty where there is none, or none to be read."""
        try:
            return path.read_text(errors="replace").strip()
        except OSError:
            return ""


def look_around() -> Surroundings:
    """Give the real ones."""
    return Surroundings(environment=dict(os.environ))
