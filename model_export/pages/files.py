"""Files that are written whole or not at all: beside their place first, then renamed into it."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`; whoever reads it meanwhile finds the old file or the new one, never half of it.

    Raises:
        OSError: the folder is not there, or can not be written to; what was at `path` stays.
    """
    draft = path.with_name(f"{path.name}.partial")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
