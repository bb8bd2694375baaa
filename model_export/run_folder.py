"""A run's folder: what lies in it, whether a new run may take it, and that one training at a time writes into it."""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_export.errors import CheckpointInvalid, first_line

BEST = "best.ckpt"
LAST = "last.ckpt"
LOCK = "training.lock"


def check_free(run_dir: Path, *, overwrite: bool) -> None:
    """See that a new run may be written into `run_dir`.

    Raises:
        CheckpointInvalid: it holds a run, and `overwrite` is false; or something is in the way.
    """
    paths = (run_dir / BEST, run_dir / LAST)
    for path in paths:
        if path.is_dir():
            raise CheckpointInvalid(
                f"{path} is a folder, where a checkpoint would go: move it, or choose another --out"
            )
    found = [path for path in paths if path.exists()]
    if found and not overwrite:
        raise CheckpointInvalid(
            f"{run_dir} holds a run already: choose another --out, say --overwrite, or go on with --resume "
            f"{shlex.quote(str(found[-1]))}"
        )


@contextmanager
def claim(run_dir: Path) -> Iterator[None]:
    """Make `run_dir` if need be, and keep every other training out of it while the block runs.

    The system gives the lock back when a process ends, however it ends: a lock file that is left over hinders nobody.

    Raises:
        CheckpointInvalid: another training has it, or it can not be written to.
    """
    lock = _lock(run_dir)
    try:
        yield
    finally:
        (run_dir / LOCK).unlink(missing_ok=True)
        os.close(lock)


def _lock(run_dir: Path) -> int:
    """The open lock file, locked and still the one in the folder: another training may have removed it in between."""
    path = run_dir / LOCK
    while True:
        lock = _open(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            os.close(lock)
            raise CheckpointInvalid(
                f"another training writes into {run_dir}: wait until it is over, or choose another --out"
            ) from err
        if path.exists() and path.stat().st_ino == os.fstat(lock).st_ino:
            return lock
        os.close(lock)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as err:
        raise CheckpointInvalid(
            f"{path.parent} can not be a run's folder: {first_line(err)}: choose another --out"
        ) from err
