"""Which versions are to be loaded, which to be let go, and which one answers for a model: decided here, done elsewhere.

The newest versions that can be loaded stay loaded, `keep` of each model, so that the one before is at hand if the
newest has to go; and beside them those that a label or a wish points to. Nothing is let go before what takes its place
is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from service.repository import Found, Key, Place

DEFAULT_LABEL = "default"

Stamp = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What was asked for by request: what to unload, which versions answer for their model, how often to try again."""

    unloaded: frozenset[str] = frozenset()
    defaults: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    number: int = 0  # of changes so far

    def counted(self) -> Wishes:
        """Give these wishes as the next ones."""
        return replace(self, number=self.number + 1)

    def with_loaded(self, name: str) -> Wishes:
        """Wish that a model be loaded, and what failed be tried again."""
        attempts = self.attempts | {name: self.attempts.get(name, 0) + 1}
        return replace(self, unloaded=self.unloaded - {name}, attempts=attempts)

    def with_unloaded(self, name: str) -> Wishes:
        """Wish that a model be let go until it is asked for again."""
        return replace(self, unloaded=self.unloaded | {name})

    def with_default(self, name: str, version: str | None) -> Wishes:
        """Wish that a version answer for its model; None: the usual one."""
        defaults = {model: number for model, number in self.defaults.items() if model != name}
        return replace(self, defaults=defaults | ({name: version} if version else {}))


@dataclass(frozen=True)
class Plan:
    """What to load next, in this order, and what to let go once all that is loaded."""

    load: tuple[Place, ...]
    unload: frozenset[Key]


def plan(found: Found, loaded: Mapping[Key, Stamp], failed: Mapping[Key, Stamp], wishes: Wishes, *, keep: int) -> Plan:
    """Decide by what was found, what is loaded and what could not be; `keep` 0 keeps all versions."""
    load: list[Place] = []
    chosen: set[Key] = set()
    for name, places in found.places.items():
        if name in wishes.unloaded:
            continue
        pinned = {*(found.labels.get(name) or {}).values(), wishes.defaults.get(name)}
        num_kept = 0
        for place in places:
            if keep and num_kept >= keep and place.version not in pinned:
                continue
            has_failed = failed.get(place.key) == place.stamp
            if not has_failed and loaded.get(place.key) != place.stamp:
                load.append(place)
            if not has_failed or place.key in loaded:
                chosen.add(place.key)
                num_kept += 1
    return Plan(tuple(load), frozenset(loaded.keys() - chosen))


def choose_default(versions: list[str], labels: Mapping[str, str], wished: str | None) -> str:
    """Choose which of the loaded versions answers for its model: the one wished for, the one labelled, the highest."""
    for version in (wished, labels.get(DEFAULT_LABEL)):
        if version in versions:
            return version
    return max(versions, key=lambda version: int(version or 0))
