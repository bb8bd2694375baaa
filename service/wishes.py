"""What was asked for by request, kept where all processes of one server see it: one file, changed under a lock.

A request to load or unload reaches one process; the others follow within `FOLLOW_SECONDS`, and who asked is answered
once they have. A process that starts later reads what was wished before it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from service.counts import is_alive
from service.versions import Wishes

FOLLOW_SECONDS = 0.2
FILE, LOCK, FOLLOWED = "wishes.json", "wishes.lock", ".followed"


class WishBoard:
    """The wishes of one server. Without a directory they are this process's own."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._own = Wishes()  # with a directory: as they were read last
        self._followed = -1

    def read(self) -> Wishes:
        """Give the wishes as they are."""
        if self._directory is None:
            return self._own
        with suppress(FileNotFoundError):  # who tidies up temporary files takes nobody's wishes away
            self._own = msgspec.json.decode((self._directory / FILE).read_bytes(), type=Wishes)
        return self._own

    def change(self, change: Callable[[Wishes], Wishes]) -> Wishes:
        """Change the wishes, one after the other however many ask at once; give what they are then."""
        if self._directory is None:
            self._own = change(self._own).counted()
            return self._own
        with self._locked(self._directory):
            changed = change(self.read()).counted()
            draft = self._directory / f"{FILE}.{os.getpid()}"
            draft.write_bytes(msgspec.json.encode(changed))
            draft.replace(self._directory / FILE)
        return changed

    def follow(self, wishes: Wishes) -> None:
        """Note that this process is as these wishes want it."""
        if self._directory is None:
            return
        path = self._directory / f"{os.getpid()}{FOLLOWED}"
        if wishes.number == self._followed and path.exists():
            return
        self._directory.mkdir(parents=True, exist_ok=True)  # who tidies up may have taken it away
        draft = path.with_suffix(".draft")
        draft.write_text(str(wishes.number))
        draft.replace(path)
        self._followed = wishes.number

    def all_follow(self, wishes: Wishes) -> bool:
        """Say if every living process is as these wishes want it, or later ones."""
        return all(number >= wishes.number for number in self._numbers())

    def _numbers(self) -> Iterator[int]:
        for path in self._directory.glob(f"*{FOLLOWED}") if self._directory is not None else ():
            if is_alive(int(path.stem)):
                with suppress(FileNotFoundError):
                    yield int(path.read_text())

    @contextmanager
    def _locked(self, directory: Path) -> Iterator[None]:
        directory.mkdir(parents=True, exist_ok=True)  # who tidies up temporary files may have taken it away
        with (directory / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
