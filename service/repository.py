"""What there is to serve: bundles and bare models found below `--models`, each checked before it may answer.

<root>/<name>/<version>/manifest.json    every name, in its highest versions
<root>/<name>/labels.json                names for versions, such as {"stable": 1, "canary": 2}
<bundle>/manifest.json                   this one bundle
<file>.onnx                              this one bare model: without digests, examples or labels
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from service.batches import Batches
from service.batching import Batching
from service.bundle import (
    MANIFEST_FILE,
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
    """

    places: dict[str, tuple[Place, ...]]
    labels: dict[str, dict[str, str] | None]
    complaints: tuple[str, ...] = ()


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
    """
    if models_path.is_file():
        return _found_one(Place(_name_bare_model(models_path), None, models_path, _stamp(models_path)))
    if (models_path / MANIFEST_FILE).is_file():
        manifest = read_manifest(models_path / MANIFEST_FILE)
        stamp = _stamp(models_path / MANIFEST_FILE)
        return _found_one(Place(manifest.name, manifest.version, models_path, stamp))
    places = _find_versions(models_path)
    if not places:
        raise BundleNotFound(
            f"nothing to serve at {models_path}: expected a bundle, a directory of bundles "
            f"(…/<name>/<version>/{MANIFEST_FILE}), or one .onnx file"
        )
    return _with_labels(models_path, places)


def open_place(place: Place, opening: Opening, models_path: Path) -> ServedModel:
    """Read, open and check what lies at a place.

    Raises:
        BundleError: it can not be served; the message names it.
        DeviceUnavailable: the device is "cuda" or "tensorrt", and can not be used.
    """
    model = _open(place.path, opening)
    if place.path != models_path:
        _check_place(model)
    return model


def _found_one(place: Place) -> Found:
    return Found(places={place.name: (place,)}, labels={place.name: {}})


def _find_versions(root: Path) -> dict[str, tuple[Place, ...]]:
    places: dict[str, list[Place]] = {}
    for manifest_path in root.glob(f"*/*/{MANIFEST_FILE}"):
        directory = manifest_path.parent
        if VERSION_PATTERN.fullmatch(directory.name) and NAME_PATTERN.fullmatch(directory.parent.name):
            place = Place(directory.parent.name, directory.name, directory, _stamp(manifest_path))
            places.setdefault(place.name, []).append(place)
    return {name: tuple(sorted(places[name], key=_number, reverse=True)) for name in sorted(places)}


def _number(place: Place) -> int:
    return int(place.version or 0)


def _stamp(path: Path) -> tuple[int, ...]:
    """Tell a file from the one that stood there before, without reading it."""
    status = path.stat()
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _with_labels(root: Path, places: dict[str, tuple[Place, ...]]) -> Found:
    labels: dict[str, dict[str, str] | None] = {}
    complaints = []
    for name in places:
        try:
            labels[name] = _read_labels(root / name / LABELS_FILE)
        except (OSError, msgspec.MsgspecError, ValueError) as err:
            labels[name] = None
            complaints.append(f"{root / name / LABELS_FILE}: {err}")
    return Found(places=places, labels=labels, complaints=tuple(complaints))


def _read_labels(path: Path) -> dict[str, str]:
    """Read which versions the labels of a model point to, such as `{"stable": 1, "canary": 2}`; none without a file."""
    if not path.exists():
        return {}
    labels = msgspec.json.decode(path.read_bytes(), type=dict[str, int | str])
    wrong = [label for label in labels if not LABEL_PATTERN.fullmatch(label)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no label: expected letters, digits and '_'")
    return {label: str(version) for label, version in labels.items()}


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


def _check_place(model: ServedModel) -> None:
    """Refuse a bundle that lies under another one's name or version, as a copy or a rename leaves it."""
    place = model.path.resolve()
    if (place.parent.name, place.name) != (model.name, model.version):
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
