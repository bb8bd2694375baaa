"""What is wrong, said to people: one plain line on stderr."""

from __future__ import annotations

import sys


def complain(line: str) -> None:
    """Say on one plain line of stderr what is wrong."""
    sys.stderr.write(f"foldserve: {' '.join(line.split())}\n")
    sys.stderr.flush()
