"""Loading, unloading and rolling back by request: a wish is written down, this process follows, then the others."""

from __future__ import annotations

import asyncio
import time

from service.errors import ModelUnknown
from service.loading import Loader
from service.protocols.directory import Directory
from service.versions import Wishes
from service.wishes import FOLLOW_SECONDS, WishBoard

PATIENCE_SECONDS = 30.0  # for the other processes, which may have to load a model for it


class Manager:
    """What may be asked of the models by request."""

    def __init__(self, loader: Loader, board: WishBoard, directory: Directory) -> None:
        self._loader = loader
        self._board = board
        self._directory = directory

    async def load(self, name: str) -> None:
        """Look for new versions of a model and load them, also what was unloaded or has failed.

        Raises:
            ModelUnknown: there is no such model.
            FoldserveError: its newest version can not be loaded; what serves goes on.
        """
        await self._loader.refresh()
        self._check_known(name)
        await self._follow(self._board.change(lambda wishes: wishes.with_loaded(name)))
        failure = self._loader.newest_failure(name)
        if failure is not None:
            raise failure

    async def unload(self, name: str) -> None:
        """Let go all versions of a model, until it is to be loaded again.

        Raises:
            ModelUnknown: there is no such model.
        """
        self._check_known(name)
        await self._follow(self._board.change(lambda wishes: wishes.with_unloaded(name)))

    async def choose(self, name: str, version: str | None) -> str:
        """Have a version answer for its model, whatever newer ones there are; None: the usual one again.

        Raises:
            ModelUnknown: there is no such model, or the version is not there.
        """
        self._check_known(name)
        if version is not None and not any(
            (one.name, one.version) == (name, version) for one in self._directory.states
        ):
            raise ModelUnknown(f"model {name!r} has no version {version[:40]!r}", field="version", got=version[:40])
        await self._follow(self._board.change(lambda wishes: wishes.with_default(name, version)))
        model = self._directory.table.models.get(name)
        if model is None or (version is not None and model.default != version):
            raise ModelUnknown(f"version {version!r} of model {name!r} can not be loaded", field="version")
        return model.default

    async def follow(self) -> None:
        """Follow the wishes that other processes have taken, for ever."""
        while True:
            wishes = self._board.read()
            if wishes.number != self._loader.wishes.number:
                await self._loader.refresh(wishes)
            self._board.follow(self._loader.wishes)
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _follow(self, wishes: Wishes) -> None:
        await self._loader.refresh(wishes)
        self._board.follow(wishes)
        until = time.monotonic() + PATIENCE_SECONDS
        while not self._board.all_follow(wishes) and time.monotonic() < until:  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(FOLLOW_SECONDS / 4)

    def _check_known(self, name: str) -> None:
        known = sorted({one.name for one in self._directory.states})
        if name not in known:
            names = ", ".join(known) or "none"
            raise ModelUnknown(
                f"no model {name[:80]!r} lies where models are looked for: there are {names}",
                field="model",
                expected=names,
                got=name[:80],
            )
