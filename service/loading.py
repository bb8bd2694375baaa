"""Loads versions beside those that serve, and swaps them in: one at a time, in a thread, one pointer in the end.

A version that can not be loaded changes nothing but the list of states, where it says why. What is let go finishes
what it has begun.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from service.errors import BundleNotFound, FoldserveError, ModelUnloadable
from service.protocols.directory import LOADING, READY, UNAVAILABLE, Directory, Served, State, build_table
from service.protocols.paths import Protocols
from service.repository import Found, Key, Opening, Place, ServedModel, find_places, open_place
from service.versions import Plan, Stamp, Wishes, plan

RETRY_SECONDS = 60.0  # what failed for want of memory may find some later

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What is loaded from where: `keep` versions of each model; and which model is the default."""

    models_path: Path
    opening: Opening
    keep: int
    default_model: str | None
    protocols: Protocols


@dataclass(frozen=True)
class _Failure:
    stamp: Stamp
    error: FoldserveError
    at: float


class Loader:
    """Keeps a directory as the files and the wishes are. `create` makes what serves of a model, `retire` lets it go."""

    def __init__(
        self,
        loading: Loading,
        directory: Directory,
        *,
        create: Callable[[ServedModel], Awaitable[Served]],
        retire: Callable[[Served], Awaitable[None]],
        wishes: Wishes,
    ) -> None:
        self._loading = loading
        self._directory = directory
        self._create = create
        self._retire = retire
        self._one_at_a_time = asyncio.Lock()
        self._served: dict[Key, Served] = {}
        self._places: dict[Key, Place] = {}
        self._failures: dict[Key, _Failure] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._shown: tuple[dict[Key, Served], dict[str, dict[str, str]], dict[str, str]] = ({}, {}, {})
        self._found = Found(places={}, labels={})
        self._complaints: tuple[str, ...] = ()
        self.wishes = wishes

    async def start(self, *, strict: bool = True) -> None:
        """Load what is there. If that is not `strict`, what can be served is, and the rest is only complained of.

        Raises:
            BundleNotFound: there is nothing to serve, or not the default model.
            FoldserveError: of some model no version can be served (not strict: of none); why not the newest.
        """
        try:
            self._take_in(await asyncio.to_thread(find_places, self._loading.models_path))
        except OSError as err:
            raise BundleNotFound(f"{self._loading.models_path} can not be read: {err.strerror}") from err
        await self._settle()
        no_default = self._missing_default()
        errors = [*self._errors_of_models(), *no_default]
        if errors and (strict or not self._served):
            raise errors[0]
        for key, failure in self._failures.items():
            logger.warning("%s can not be loaded: %s", _name(key), failure.error)
        for error in no_default:
            logger.warning(str(error))

    async def refresh(self, wishes: Wishes | None = None) -> None:
        """Look again, and make it so."""
        async with self._one_at_a_time:
            if wishes is not None:
                self._take_wishes(wishes)
            try:
                found = await asyncio.to_thread(find_places, self._loading.models_path)
            except (FoldserveError, OSError) as err:
                self._complain((f"{err}; what is loaded goes on serving",))
            else:
                self._take_in(found)
            await self._settle()

    def _errors_of_models(self) -> list[FoldserveError]:
        """Say of each model of which nothing serves, though it was not unloaded, why its newest version does not."""
        served = {name for name, _ in self._served} | self.wishes.unloaded
        newest = [places[0].key for name, places in self._found.places.items() if name not in served]
        return [self._failures[key].error for key in newest]

    def _missing_default(self) -> list[FoldserveError]:
        default, names = self._loading.default_model, sorted(self._found.places)
        if default is None or default in names:
            return []
        return [BundleNotFound(f"the default model {default!r} is not there: there are {', '.join(names)}")]

    def newest_failure(self, name: str) -> FoldserveError | None:
        """Give why the newest version of a model is not loaded; None if it is, or there is none."""
        places = self._found.places.get(name, ())
        failure = self._failures.get(places[0].key) if places else None
        return None if failure is None else failure.error

    def close(self) -> None:
        """Let the long models' threads go."""
        for served in self._served.values():
            if served.runner.thread is not None:
                served.runner.thread.close()

    # --- what is to be done ------------------------------------------------------------------------------------------

    def _take_wishes(self, wishes: Wishes) -> None:
        again = {name for name, number in wishes.attempts.items() if number != self.wishes.attempts.get(name, 0)}
        self._failures = {key: failure for key, failure in self._failures.items() if key[0] not in again}
        self.wishes = wishes

    def _take_in(self, found: Found) -> None:
        self._found = found.with_loaded(self._places.values())
        self._labels = {
            name: self._labels.get(name, {}) if labels is None else labels for name, labels in found.labels.items()
        }
        self._complain(found.complaints)

    def _complain(self, complaints: tuple[str, ...]) -> None:
        """Say what is new."""
        for complaint in complaints:
            if complaint not in self._complaints:
                logger.warning(complaint)
        self._complaints = complaints

    def _plan(self, since: float) -> Plan:
        failed = {key: failure.stamp for key, failure in self._failures.items() if failure.at >= since}
        loaded = {key: place.stamp for key, place in self._places.items()}
        found = replace(self._found, labels=dict(self._labels))
        return plan(found, loaded, failed, self.wishes, keep=self._loading.keep)

    # --- doing it ----------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Load what is to be loaded, one by one, then let go what is to go.

        What has failed when this begins, or fails meanwhile, counts as failed to its end, however long that takes.
        """
        since = time.monotonic() - RETRY_SECONDS
        while news := self._plan(since).load:
            await self._load(news[0])
        unload = self._plan(since).unload
        gone = [self._served.pop(key) for key in unload]
        for key in unload:
            del self._places[key]
            logger.info("%s is not served any more", _name(key))
        self._swap()
        for served in gone:
            await self._retire(served)

    async def _load(self, place: Place) -> None:
        self._tell_states(loading=place.key)
        try:
            model = await asyncio.to_thread(open_place, place, self._loading.opening, self._loading.models_path)
            served = await self._create(model)
        except FoldserveError as err:
            self._note_failure(place, err)
        except OSError as err:  # a file that vanished, or that may not be read
            self._note_failure(place, BundleNotFound(f"{place.path}: {err}"))
        except Exception as err:  # noqa: BLE001 - whatever it is, all other models go on
            unforeseen = ModelUnloadable(f"{place.path}: {type(err).__name__}: {err}")
            self._note_failure(place, unforeseen, because=err)
        else:
            await self._put_in(place, served)

    def _note_failure(self, place: Place, err: FoldserveError, *, because: Exception | None = None) -> None:
        """Say what is new, with the traceback of what nobody had foreseen; at the start all is said in the end."""
        before = self._failures.get(place.key)
        if self._directory.ready and (before is None or str(before.error) != str(err)):
            logger.warning("%s can not be loaded: %s", _name(place.key), err, exc_info=because)
        self._failures[place.key] = _Failure(place.stamp, err, time.monotonic())
        self._tell_states()

    async def _put_in(self, place: Place, served: Served) -> None:
        before = self._served.get(place.key)
        self._failures.pop(place.key, None)
        self._served[place.key], self._places[place.key] = served, place
        self._swap()
        if self._directory.ready:
            logger.info("%s is loaded and checked: it serves now", _name(place.key))
        if before is not None:
            await self._retire(before)

    def _swap(self) -> None:
        """Put what is loaded where requests are looked up, if it has changed since."""
        shown = (dict(self._served), self._labels, self.wishes.defaults)
        if shown != self._shown:
            self._shown = shown
            self._directory.table = build_table(
                *shown, default_model=self._loading.default_model, protocols=self._loading.protocols
            )
        self._tell_states()

    def _tell_states(self, loading: Key | None = None) -> None:
        places = [place for places in self._found.places.values() for place in reversed(places)]
        self._directory.states = tuple(self._describe(place, loading) for place in places)

    def _describe(self, place: Place, loading: Key | None) -> State:
        name, version = place.key
        failure = self._failures.get(place.key)
        if place.key in self._served:
            reason = f"the files that lie there now can not be loaded: {failure.error}" if failure else ""
            return State(name, version, READY, reason)
        if place.key == loading:
            return State(name, version, LOADING)
        if failure is not None:
            return State(name, version, UNAVAILABLE, str(failure.error))
        if name in self.wishes.unloaded:
            return State(name, version, UNAVAILABLE, "unloaded by request")
        kept = self._loading.keep
        return State(name, version, UNAVAILABLE, f"not loaded: --versions {kept} keeps the newest {kept} of a model")


async def watch(loader: Loader, seconds: float) -> None:
    """Look for new versions every so many seconds, for ever."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await loader.refresh()
        except Exception:  # whatever it is, what serves goes on, and the next look may succeed
            logger.exception("the models could not be looked at again")


def _name(key: Key) -> str:
    return f"{key[0]}, version {key[1]}" if key[1] else key[0]
