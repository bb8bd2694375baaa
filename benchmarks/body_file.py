"""Bodies of requests in a file, for the programs that send them: one a line, in hexadecimal digits.

So a body may be any bytes, line ends and zeros too. `wrk.lua` reads the same file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def write_bodies(path: Path, bodies: Iterable[bytes]) -> Path:
    """Write the file, and give its path back."""
    path.write_text("".join(f"{body.hex()}\n" for body in bodies), encoding="ascii")
    return path


def read_bodies(path: Path) -> list[bytes]:
    """Read what was written.

    Raises:
        ValueError: a line is something else than hexadecimal digits.
    """
    return list(map(bytes.fromhex, path.read_text(encoding="ascii").splitlines()))
