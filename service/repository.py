"""What there is to serve: bundles and bare models found below `--models`, each checked before it may answer.

<root>/<name>/<version>/manifest.json    every name, in its highest versions
<root>/<name>/labels.json                names for versions, such as {"stable": 1, "canary": 2}
<bundle>/manifest.json                   this one bundle
<file>.onnx                              this one bare model: without digests, examples or labels
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from service.batches import Batches
from service.batching import Batching
from service.bundle import (
    EXAMPLES_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    NAME_PATTERN,
    VERSION_PATTERN,
    Bundle,
    Example,
    Manifest,
    read_bundle,
    read_manifest,
)
from service.device import AS_USUAL, GpuOptions, ServingDevice
from service.errors import BundleNotFound, FoldserveError, ManifestInvalid
from service.predictor import Predictor, SelfCheck, open_predictor
from service.scheduler import USUAL_INLINE_SECONDS

LABELS_FILE = "labels.json"
LABEL_PATTERN = re.compile(r"[A-Za-z0-9_]{1,64}")
MAX_LABELS_BYTES = 64 << 10
NUM_NAMED = 8  # of the versions that there are, in a complaint
NO_FILE = (0, 0, 0)
Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model that passed its checks. A bare model has no manifest, no version and no examples.

    A run of a model that `is_short` holds up the event loop for less than a thread would cost.
    """

    name: str
    version: str | None
    path: Path
    predictor: Predictor
    self_check: SelfCheck
    is_short: bool
    batching: Batching
    batches: Batches
    manifest: Manifest | None = None
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where one version lies. `stamp` is another one when what lies there is another; a bare model has no version."""

    name: str
    version: str | None
    path: Path
    stamp: tuple[int, ...]

    @property
    def key(self) -> Key:
        """Name and version, which is empty where there is none."""
        return (self.name, self.version or "")


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that there is: places by model, from the highest version down; what labels point to, by model.

    `complaints` say which files could not be read; of labels that can not be read, those that were read last hold.
    Nothing is known of versions that are `unclear` (the directory is there, its manifest is not, or can not be looked
    at) and of models that are `unread` (their directory can not be listed): that is not the same as gone.
    """

    places: dict[str, tuple[Place, ...]]
    labels: dict[str, dict[str, str] | None]
    complaints: tuple[str, ...] = ()
    unclear: frozenset[Key] = frozenset()
    unread: frozenset[str] = frozenset()

    def with_loaded(self, loaded: Iterable[Place]) -> Found:
        """Add what is loaded and can not be seen just now: it is taken to be as it was."""
        unseen = [place for place in loaded if place.key in self.unclear or place.name in self.unread]
        return replace(self, places=_by_model([*unseen, *(one for places in self.places.values() for one in places)]))


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How every model is opened: on which device, how a GPU is used, and if batches must be bitwise the same.

    What runs for less than `inline_seconds` is short: it is run on the event loop, and in batches if it may be.
    """

    device: ServingDevice = "auto"
    gpu: GpuOptions = AS_USUAL
    bitwise: bool = True
    inline_seconds: float = USUAL_INLINE_SECONDS


def find_places(models_path: Path) -> Found:
    """Look which versions there are, without reading them.

    Raises:
        BundleNotFound: there is nothing to serve at all.
        BundleError: it is one bundle, whose manifest can not be read.
        OSError: the directory itself can not be read.
    """
    if models_path.is_file():
        return _found_one(Place(_name_bare_model(models_path), None, models_path, _stamp(models_path)))
    if (models_path / MANIFEST_FILE).is_file():
        stamp = _stamp_bundle(models_path)
        manifest = read_manifest(models_path / MANIFEST_FILE)
        return _found_one(Place(manifest.name, manifest.version, models_path, stamp))
    found = _find_versions(models_path)
    if not found.places:
        raise BundleNotFound(
            f"nothing to serve at {models_path}: expected a bundle, a directory of bundles "
            f"(…/<name>/<version>/{MANIFEST_FILE}), or one .onnx file" + "".join(f"; {it}" for it in found.complaints)
        )
    return _with_labels(models_path, found)


def open_place(place: Place, opening: Opening, models_path: Path) -> ServedModel:
    """Read, open and check what lies at a place.

    Raises:
        BundleError: it can not be served; the message names it.
        DeviceUnavailable: the device is "cuda" or "tensorrt", and can not be used.
    """
    model = _open(place.path, opening)
    if place.path != models_path:
        _check_place(place, model)
    return model


def _found_one(place: Place) -> Found:
    return Found(places={place.name: (place,)}, labels={place.name: {}})


# --- looking ---------------------------------------------------------------------------------------------------------


def _find_versions(root: Path) -> Found:
    look = _Look()
    for name in filter(NAME_PATTERN.fullmatch, _list_names(root)):
        look.at_model(root / name)
    return Found(
        places=_by_model(look.places),
        labels={},
        complaints=tuple(sorted(look.complaints)),
        unclear=frozenset(look.unclear),
        unread=frozenset(look.unread),
    )


class _Look:
    """What is seen below a directory, piece by piece. What can not be read is told from what is not there."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.unclear: set[Key] = set()
        self.unread: set[str] = set()
        self.complaints: list[str] = []

    def at_model(self, directory: Path) -> None:
        try:
            names = _list_names(directory)
        except OSError as err:
            self.unread.add(directory.name)
            self._complain(directory, err)
            return
        for version in filter(VERSION_PATTERN.fullmatch, names):
            self._at_version(directory / version)

    def _at_version(self, directory: Path) -> None:
        key = (directory.parent.name, directory.name)
        try:
            self.places.append(Place(*key, directory, _stamp_bundle(directory)))
        except NotADirectoryError:
            return
        except FileNotFoundError:
            if directory.is_dir():
                self.unclear.add(key)
        except OSError as err:
            self.unclear.add(key)
            self._complain(directory, err)

    def _complain(self, path: Path, err: OSError) -> None:
        self.complaints.append(f"{path} can not be read: {err.strerror}; what is loaded of it goes on serving")


def _list_names(directory: Path) -> list[str]:
    """List what is in a directory; in what is none, or is not there, is nothing."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _by_model(places: Iterable[Place]) -> dict[str, tuple[Place, ...]]:
    """Put places in order: by model, from the highest version down."""
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault(place.name, []).append(place)
    return {name: tuple(sorted(found[name], key=_number, reverse=True)) for name in sorted(found)}


def _number(place: Place) -> int:
    return int(place.version or 0)


def _stamp_bundle(directory: Path) -> tuple[int, ...]:
    """Tell a bundle from the one that stood there before: by its manifest, and by the files that come with it."""
    others = (_stamp_if_any(directory / name) for name in (MODEL_FILE, EXAMPLES_FILE))
    return (*_stamp(directory / MANIFEST_FILE), *(number for stamp in others for number in stamp))


def _stamp_if_any(path: Path) -> tuple[int, ...]:
    try:
        return _stamp(path)
    except OSError:
        return NO_FILE


def _stamp(path: Path) -> tuple[int, ...]:
    """Tell a file from the one that stood there before, without reading it."""
    status = path.stat()
    return (status.st_mtime_ns, status.st_size, status.st_ino)


# --- labels ----------------------------------------------------------------------------------------------------------


def _with_labels(root: Path, found: Found) -> Found:
    labels: dict[str, dict[str, str] | None] = dict.fromkeys(sorted(found.unread))
    complaints = list(found.complaints)
    there = {*found.unclear, *(place.key for places in found.places.values() for place in places)}
    for name in sorted({name for name, _ in there}):
        path = root / name / LABELS_FILE
        try:
            read = labels[name] = read_labels(path)
        except (OSError, msgspec.MsgspecError, ValueError) as err:
            labels[name] = None
            complaints.append(f"{path}: {err}")
        else:
            complaints += _complain_of_labels(path, read, [version for model, version in there if model == name])
    return replace(found, labels=labels, complaints=tuple(complaints))


def _complain_of_labels(path: Path, labels: dict[str, str], there: list[str]) -> list[str]:
    """Name the labels of versions that are not there: nothing answers for them."""
    versions = sorted(there, key=int, reverse=True)
    shown = ", ".join(versions[:NUM_NAMED]) + (", …" if len(versions) > NUM_NAMED else "")
    return [
        f"{path}: the label {label!r} points to version {version[:20]}, which is not there: there are {shown}"
        for label, version in labels.items()
        if version not in versions
    ]


def read_labels(path: Path) -> dict[str, str]:
    """Read which versions the labels of a model point to, such as `{"stable": 1, "canary": 2}`; none without a file.

    Raises:
        OSError: it can not be read.
        msgspec.MsgspecError: it is not JSON of that form.
        ValueError: it is no plain file, it is too long, or a label is none.
    """
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return {}
    if not is_file:  # to open a pipe may take for ever
        raise ValueError("expected a plain file; this is a directory, a pipe or a device")
    labels = msgspec.json.decode(_read_short(path), type=dict[str, int | str])
    wrong = [label for label in labels if not LABEL_PATTERN.fullmatch(label)]
    if wrong:
        raise ValueError(f"{wrong[0][:40]!r} is no label: expected letters, digits and '_'")
    return {label: str(version) for label, version in labels.items()}


def _read_short(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_LABELS_BYTES + 1)
    if len(content) > MAX_LABELS_BYTES:
        raise ValueError(f"expected at most {MAX_LABELS_BYTES >> 10} KiB of labels")
    return content


# --- opening ---------------------------------------------------------------------------------------------------------


def _open(path: Path, opening: Opening) -> ServedModel:
    try:
        return _open_bare_model(path, opening) if path.is_file() else _open_bundle(read_bundle(path), opening)
    except FoldserveError as err:
        _name_the_place(err, path)
        raise


def _name_the_place(err: FoldserveError, path: Path) -> None:
    """Put the path in front of a message that does not name it yet."""
    message = str(err)
    if str(path) not in message:
        err.args = (f"{path}: {message}", *err.args[1:])


def _open_bundle(bundle: Bundle, opening: Opening) -> ServedModel:
    manifest = bundle.manifest
    gpu = replace(opening.gpu, precision=manifest.precision.name if manifest.precision else "fp32")
    predictor = open_predictor(bundle.model_path, manifest.signature, opening.device, gpu)
    tolerances = {parity.output: parity.tolerance for parity in manifest.parity.outputs}
    self_check = predictor.self_check(bundle.examples, tolerances)
    batching = choose_batching(predictor, bundle.examples, self_check, opening)
    return ServedModel(
        name=manifest.name,
        version=manifest.version,
        path=bundle.directory,
        predictor=predictor,
        self_check=self_check,
        is_short=self_check.median_seconds < opening.inline_seconds,
        batching=batching,
        batches=predictor.open_batches(batching),
        manifest=manifest,
        examples=bundle.examples,
    )


def _check_place(place: Place, model: ServedModel) -> None:
    """Refuse a bundle that lies under another one's name or version, as a copy or a rename leaves it.

    What counts is the name that it was found by: the directory may be a link to another one.
    """
    if (place.name, place.version) != (model.name, model.version):
        raise ManifestInvalid(
            f"{model.path} holds model {model.name!r}, version {model.version!r}: "
            f"expected it in …/{model.name}/{model.version}"
        )


def _open_bare_model(path: Path, opening: Opening) -> ServedModel:
    predictor = open_predictor(path, None, opening.device, opening.gpu)
    self_check = predictor.self_check((), {})
    batching = choose_batching(predictor, (), self_check, opening)
    return ServedModel(
        name=_name_bare_model(path),
        version=None,
        path=path,
        predictor=predictor,
        self_check=self_check,
        is_short=self_check.median_seconds < opening.inline_seconds,
        batching=batching,
        batches=predictor.open_batches(batching),
    )


def _name_bare_model(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:64] or "model"


def choose_batching(
    predictor: Predictor, examples: Sequence[Example], self_check: SelfCheck, opening: Opening
) -> Batching:
    """A long model runs in its own thread, one instance at a time; a short one in the batches that it may."""
    if self_check.median_seconds >= opening.inline_seconds:
        return Batching(reason="the model runs in a thread of its own")
    return predictor.plan_batching(examples, self_check, bitwise=opening.bitwise)
