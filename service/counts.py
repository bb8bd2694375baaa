"""Numbers that the processes of one server count, each for itself, and that any of them can add up: float64 cells.

Each process writes one file a subject, in a directory that all share: a line of JSON that says what is counted, padded
to `HEAD_BYTES`, then the cells, mapped into memory. Counting is one addition in memory, without a lock and without a
system call; what a process has counted stays when it dies. A server of one process keeps its cells to itself.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

HEAD_BYTES = 1024
SUFFIX = ".counts"
CELL_BYTES = 8

# One number a cell. Only the process that opened them writes there.
Cells = MutableSequence[float]
Labels = tuple[str, ...]


@dataclass(frozen=True)
class Counted:
    """What all processes together have counted for one subject."""

    labels: Labels
    values: tuple[float, ...]


class Counts:
    """The cells of this process, and the sums over all."""

    def __init__(self, num_cells: int, directory: Path | None = None, *, suffix: str = SUFFIX) -> None:
        self._num_cells = num_cells
        self._suffix = suffix
        self._directory = directory
        self._own: dict[Labels, Cells] = {}
        self._own_paths: set[Path] = set()

    def open(self, labels: Labels) -> Cells:
        """Give this process's cells for a subject, float64 [num_cells], all 0 at first."""
        if labels not in self._own:
            self._own[labels] = self._create(labels)
        return self._own[labels]

    def sums(self) -> list[Counted]:
        """Add up what has been counted, by subject."""
        by_labels: dict[Labels, list[Sequence[float]]] = {}
        for labels, values in self._read():
            by_labels.setdefault(labels, []).append(values)
        return [Counted(labels, tuple(map(sum, zip(*each, strict=True)))) for labels, each in by_labels.items()]

    def each_alive(self) -> list[Counted]:
        """Give the cells of every subject in every process that lives: of the dead nothing goes up and down."""
        alive = (_read_file(path) for path in self._others() if is_alive(int(path.name.split("-")[0])))
        return [Counted(labels, tuple(values)) for labels, values in (*self._own.items(), *alive)]

    def _create(self, labels: Labels) -> Cells:
        num_bytes = HEAD_BYTES + self._num_cells * CELL_BYTES
        memory: Any = bytearray(num_bytes)
        if self._directory is not None:
            path = self._directory / f"{os.getpid()}-{time.time_ns()}{self._suffix}"
            memory = _map_file(path, labels, num_bytes)
            self._own_paths.add(path)
        cells: Any = memoryview(memory)[HEAD_BYTES:].cast("d")
        return cells  # type: ignore[no-any-return]

    def _read(self) -> Iterator[tuple[Labels, Sequence[float]]]:
        """Read our own from memory: who tidies up temporary files does not reach those."""
        yield from self._own.items()
        for path in self._others():
            yield _read_file(path)

    def _others(self) -> list[Path]:
        """List the files of the other processes, the dead ones' too."""
        if self._directory is None:
            return []
        return sorted(set(self._directory.glob(f"*{self._suffix}")) - self._own_paths)


def _read_file(path: Path) -> tuple[Labels, Sequence[float]]:
    content = path.read_bytes()
    labels = msgspec.json.decode(content[:HEAD_BYTES].rstrip(), type=Labels)
    return labels, memoryview(content[HEAD_BYTES:]).cast("d")


def is_alive(pid: int) -> bool:
    """Say if a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is another user's
        return True
    return True


def _map_file(path: Path, labels: Labels, num_bytes: int) -> mmap.mmap:
    """Write the file whole under another name first: who adds up never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)  # who tidies up temporary files may have taken it away
    draft = path.with_suffix(".draft")
    draft.write_bytes(msgspec.json.encode(labels).ljust(HEAD_BYTES) + bytes(num_bytes - HEAD_BYTES))
    with draft.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), num_bytes)
    draft.rename(path)
    return mapped
