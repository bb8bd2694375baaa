"""Loading, unloading and rolling back by request: a wish is written down, this process follows, then the others."""

from __future__ import annotations

import asyncio
import logging
import time

from service.errors import ModelUnknown, NotReady
from service.loading import Loader
from service.protocols.directory import Directory
from service.versions import Wishes
from service.wishes import FOLLOW_SECONDS, WishBoard

PATIENCE_SECONDS = 30.0  # for the other processes, which may have to load a model for it

logger = logging.getLogger(__name__)


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
            NotReady: another process has not followed yet.
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
            NotReady: another process has not followed yet.
        """
        self._check_known(name)
        await self._follow(self._board.change(lambda wishes: wishes.with_unloaded(name)))

    async def choose(self, name: str, version: str | None) -> str:
        """Have a version answer for its model, whatever newer ones there are; None: the usual one again.

        Raises:
            ModelUnknown: there is no such model, or the version is not there, or can not be loaded; all is as before.
            NotReady: another process has not followed yet.
        """
        self._check_known(name)
        if version is not None and not any(
            (one.name, one.version) == (name, version) for one in self._directory.states
        ):
            raise ModelUnknown(f"model {name!r} has no version {version[:40]!r}", field="version", got=version[:40])
        before = self._board.read().defaults.get(name)
        wishes = self._board.change(lambda wishes: wishes.with_default(name, version))
        await self._follow_here(wishes)
        model = self._directory.table.models.get(name)
        if model is None or (version is not None and model.default != version):
            await self._take_back(name, version, before)
            raise ModelUnknown(f"version {version!r} of model {name!r} can not be loaded", field="version")
        await self._wait_for_others(wishes)
        return model.default

    async def follow(self) -> None:
        """Follow the wishes that other processes have taken, for ever."""
        said = ""
        while True:
            try:
                await self._follow_others()
                said = ""
            except Exception as err:  # whatever it is, what serves goes on, and the next look may succeed
                if str(err) != said:
                    logger.exception("the wishes of the other processes could not be followed")
                said = str(err)
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _follow_others(self) -> None:
        wishes = self._board.read()
        if wishes.number != self._loader.wishes.number:
            await self._loader.refresh(wishes)
        self._board.follow(self._loader.wishes)

    async def _follow(self, wishes: Wishes) -> None:
        await self._follow_here(wishes)
        await self._wait_for_others(wishes)

    async def _follow_here(self, wishes: Wishes) -> None:
        await self._loader.refresh(wishes)
        self._board.follow(wishes)

    async def _take_back(self, name: str, version: str | None, before: str | None) -> None:
        """Wish for the default that was wished for before, unless somebody has wished for another one since."""

        def take_back(wishes: Wishes) -> Wishes:
            return wishes.with_default(name, before) if wishes.defaults.get(name) == version else wishes

        await self._follow(self._board.change(take_back))

    async def _wait_for_others(self, wishes: Wishes) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not self._board.all_follow(wishes):
            if time.monotonic() > until:
                raise NotReady(
                    f"the other processes have not followed within {PATIENCE_SECONDS:.0f} s; this one has, and they "
                    "will: ask for the state again later"
                )
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
