"""Which model version a request means, by its path: all that is loaded, behind one pointer that is swapped whole."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from service.errors import ModelUnknown
from service.protocols.answer import Answer
from service.protocols.lane import Lane
from service.protocols.paths import Protocols, list_paths
from service.protocols.runner import Runner
from service.repository import Key, ServedModel
from service.versions import choose_default

READY, UNAVAILABLE, LOADING, UNLOADING = "READY", "UNAVAILABLE", "LOADING", "UNLOADING"


@dataclass(frozen=True)
class Served:
    """One model version that answers: a lane for each protocol, and what it answered to its own example at start."""

    runner: Runner
    lanes: Mapping[str, Lane]
    example_answer: Answer

    @property
    def model(self) -> ServedModel:
        """The model."""
        return self.runner.model


@dataclass(frozen=True)
class State:
    """How it stands with one version that was found: READY, or why not."""

    name: str
    version: str
    state: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The loaded versions of one model, what its labels point to, and the version that answers for it."""

    versions: dict[str, Served]
    labels: dict[str, str]
    default: str

    @property
    def served(self) -> Served:
        """The version that answers for the model."""
        return self.versions[self.default]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Everything that requests are looked up in. It is never changed, only replaced."""

    models: dict[str, Model] = field(default_factory=dict)
    default: str | None = None
    lanes: dict[str, Lane] = field(default_factory=dict)


class Directory:
    """The one pointer to the table in use, and if the server wants to be asked."""

    def __init__(self) -> None:
        self.table = Table()
        self.states: tuple[State, ...] = ()
        self.ready = False

    def lane(self, path: str) -> Lane | None:
        """Give the lane of a path that predicts."""
        return self.table.lanes.get(path)

    def each(self) -> Iterator[Served]:
        """Go over the versions that answer for their models."""
        return (model.served for model in self.table.models.values())

    def find(self, name: str, version: str | None = None, label: str | None = None) -> Served:
        """Find a model version: by its number, by its label, or the one that answers for its model.

        Raises:
            ModelUnknown: and says what there is.
        """
        model = self.table.models.get(name)
        if model is None:
            raise self._unknown(name)
        if label is not None:
            version = model.labels.get(label)
            if version is None:
                raise _no_label(name, label, model)
        wanted = model.default if version is None else version
        if wanted not in model.versions:
            raise self._no_version(name, wanted, model)
        return model.versions[wanted]

    def find_default(self) -> Served:
        """Find the model that is meant when none is named.

        Raises:
            ModelUnknown: there are several, and none is the default.
        """
        table = self.table
        if table.default is None or table.default not in table.models:
            raise ModelUnknown(
                f"say which model: there {_list(table.models)}; put /models/<name> in front of the path, "
                "or start the server with --default-model",
                expected=", ".join(f"/models/{name}/…" for name in table.models),
            )
        return table.models[table.default].served

    def _unknown(self, name: str) -> ModelUnknown:
        shown, names = name[:80], list(self.table.models)
        meant = difflib.get_close_matches(shown, names, n=1)
        why = next((f"; it is not loaded: {one.reason}" for one in self.states if one.name == name and one.reason), "")
        hint = f". Did you mean {meant[0]!r}?" if meant else ""
        return ModelUnknown(
            f"no model {shown!r} is served here: there {_list(names)}{why}{hint}",
            field="model",
            expected=", ".join(names),
            got=shown,
        )

    def _no_version(self, name: str, version: str, model: Model) -> ModelUnknown:
        shown = version[:40]
        why = next((f"; {one.reason}" for one in self.states if (one.name, one.version) == (name, version)), "")
        return ModelUnknown(
            f"version {shown!r} of model {name!r} is not loaded: there {_list(model.versions)}{why}",
            field="version",
            expected=", ".join(model.versions),
            got=shown,
        )


def build_table(
    served: Mapping[Key, Served],
    labels: Mapping[str, Mapping[str, str]],
    defaults: Mapping[str, str],
    *,
    default_model: str | None,
    protocols: Protocols,
) -> Table:
    """Put together what is loaded. The only model is the default; of several, the one that is named."""
    by_name: dict[str, dict[str, Served]] = {}
    for (name, version), one in sorted(served.items(), key=lambda item: (item[0][0], int(item[0][1] or 0))):
        by_name.setdefault(name, {})[version] = one
    models = {
        name: _build_model(versions, labels.get(name, {}), defaults.get(name)) for name, versions in by_name.items()
    }
    default = default_model or (next(iter(models)) if len(models) == 1 else None)
    table = Table(models=models, default=default)
    lanes = {
        path: one.lanes[protocol]
        for name, model in models.items()
        for place, one in _places(model)
        for protocol, path in list_paths(protocols, name, place, is_default=name == default)
    }
    return Table(models=table.models, default=default, lanes=lanes)


def _build_model(versions: dict[str, Served], labels: Mapping[str, str], wished: str | None) -> Model:
    loaded = {label: version for label, version in labels.items() if version in versions}
    return Model(versions=versions, labels=loaded, default=choose_default(list(versions), labels, wished))


def _places(model: Model) -> Iterator[tuple[str, Served]]:
    """Give what may stand behind a model's name in a path, and the version that it means."""
    yield "", model.served
    for version, one in model.versions.items():
        if version:
            yield f"/versions/{version}", one
    for label, version in model.labels.items():
        yield f"/labels/{label}", model.versions[version]


def _no_label(name: str, label: str, model: Model) -> ModelUnknown:
    shown = label[:40]
    return ModelUnknown(
        f"model {name!r} has no label {shown!r} that points to a loaded version: there {_list(model.labels)}",
        field="label",
        expected=", ".join(model.labels),
        got=shown,
    )


def _list(names: object) -> str:
    listed = [str(name) for name in names]  # type: ignore[attr-defined]
    return f"is {listed[0]}" if len(listed) == 1 else f"are {', '.join(listed) or 'none'}"
