"""Numbers that the processes of one server count, each for itself, and that any of them can add up: float64 cells.

Each process writes files of its own, in a directory that all share, each a row of `NUM_SLOTS` slots that are mapped
into memory: a line of JSON that says what is counted, padded to `HEAD_BYTES`, then the cells. A slot is one subject's,
or empty still: it begins with 0. As a file holds many, models that come and go for ever do not use up the descriptors.
Counting is one addition in memory, without a lock and without a system call; what a process has counted stays when it
dies. A server of one process keeps its cells to itself.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

HEAD_BYTES = 1024
NUM_SLOTS = 64
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
        self._slots: list[memoryview] = []  # those that are still empty, of the file that was made last
        self._last_path: Path | None = None

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
        alive = (path for path in self._others() if is_alive(int(path.name.split("-")[0])))
        others = (subject for path in alive for subject in self._read_file(path))
        return [Counted(labels, tuple(values)) for labels, values in (*self._own.items(), *others)]

    def _create(self, labels: Labels) -> Cells:
        if self._directory is None:
            return _cells_of(memoryview(bytearray(self._slot_bytes)))
        if not self._slots or self._last_path is None or not self._last_path.exists():
            self._open_file(self._directory)
        slot = self._slots.pop(0)
        _write_head(slot, labels)
        return _cells_of(slot)

    def _open_file(self, directory: Path) -> None:
        """Make the next file, also if the last one was tidied away: the others would not see what is counted in it."""
        self._last_path = directory / f"{os.getpid()}-{time.time_ns()}{self._suffix}"
        self._own_paths.add(self._last_path)
        self._slots = self._split(memoryview(_map_file(self._last_path, NUM_SLOTS * self._slot_bytes)))

    @property
    def _slot_bytes(self) -> int:
        return HEAD_BYTES + self._num_cells * CELL_BYTES

    def _split(self, memory: memoryview) -> list[memoryview]:
        size = self._slot_bytes
        return [memory[start : start + size] for start in range(0, len(memory), size)]

    def _read(self) -> Iterator[tuple[Labels, Sequence[float]]]:
        """Read our own from memory: who tidies up temporary files does not reach those."""
        yield from self._own.items()
        for path in self._others():
            yield from self._read_file(path)

    def _read_file(self, path: Path) -> Iterator[tuple[Labels, Sequence[float]]]:
        for slot in self._split(memoryview(path.read_bytes())):
            if slot[0]:
                with suppress(msgspec.MsgspecError):  # its head is being written
                    yield msgspec.json.decode(bytes(slot[:HEAD_BYTES]).rstrip(), type=Labels), _cells_of(slot)

    def _others(self) -> list[Path]:
        """List the files of the other processes, the dead ones' too."""
        if self._directory is None:
            return []
        return sorted(set(self._directory.glob(f"*{self._suffix}")) - self._own_paths)


def _cells_of(slot: memoryview) -> Cells:
    cells: Any = slot[HEAD_BYTES:].cast("d")
    return cells  # type: ignore[no-any-return]


def _write_head(slot: memoryview, labels: Labels) -> None:
    """Write the first byte last: before it stands there the slot is empty to who reads."""
    head = msgspec.json.encode(labels).ljust(HEAD_BYTES)
    slot[1:HEAD_BYTES] = head[1:]
    slot[0] = head[0]


def is_alive(pid: int) -> bool:
    """Say if a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is another user's
        return True
    return True


def _map_file(path: Path, num_bytes: int) -> mmap.mmap:
    """Write the file whole under another name first: who adds up never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)  # who tidies up temporary files may have taken it away
    draft = path.with_suffix(".draft")
    draft.write_bytes(bytes(num_bytes))
    with draft.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), num_bytes)
    draft.rename(path)
    return mapped
