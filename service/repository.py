"""What there is to serve: bundles and bare models found below `--models`, each checked before it may answer.

<root>/<name>/<version>/manifest.json    every name, in its highest version
<bundle>/manifest.json                   this one bundle
<file>.onnx                              this one bare model: without digests, examples or labels
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from service.batches import Batches
from service.batching import Batching
from service.bundle import MANIFEST_FILE, Bundle, Example, Manifest, read_bundle
from service.device import AS_USUAL, GpuOptions, ServingDevice
from service.errors import BundleNotFound, FoldserveError, ManifestInvalid
from service.predictor import Predictor, SelfCheck, open_predictor
from service.scheduler import USUAL_INLINE_SECONDS


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


@dataclass(frozen=True, kw_only=True)
class Repository:
    """All models that are served, by name, and the one that answers where no name is given."""

    models: dict[str, ServedModel]
    default: ServedModel | None


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How every model is opened: on which device, how a GPU is used, and if batches must be bitwise the same.

    What runs for less than `inline_seconds` is short: it is run on the event loop, and in batches if it may be.
    """

    device: ServingDevice = "auto"
    gpu: GpuOptions = AS_USUAL
    bitwise: bool = True
    inline_seconds: float = USUAL_INLINE_SECONDS


def open_repository(models_path: Path, opening: Opening, *, default_model: str | None = None) -> Repository:
    """Find, read, open and check what lies at `models_path`.

    The only model is the default; of several, the one that is named.

    Raises:
        BundleNotFound: there is nothing to serve, or not the default model.
        BundleError: something there can not be served; the message names it.
        DeviceUnavailable: the device is "cuda" or "tensorrt", and can not be used.
    """
    served = [_open(path, opening) for path in find_models(models_path)]
    for model in served:
        if model.path != models_path:
            _check_place(model)
    models = {model.name: model for model in served}
    return Repository(models=models, default=_choose_default(models, default_model))


def find_models(models_path: Path) -> list[Path]:
    """Find the bundle directories, or the one bare model, that `models_path` stands for."""
    if models_path.is_file():
        return [models_path]
    if (models_path / MANIFEST_FILE).is_file():
        return [models_path]
    found = _newest_versions(models_path)
    if not found:
        raise BundleNotFound(
            f"nothing to serve at {models_path}: expected a bundle, a directory of bundles "
            f"(…/<name>/<version>/{MANIFEST_FILE}), or one .onnx file"
        )
    return found


def _newest_versions(root: Path) -> list[Path]:
    newest: dict[str, Path] = {}
    for manifest_path in root.glob(f"*/*/{MANIFEST_FILE}"):
        directory = manifest_path.parent
        if not directory.name.isdecimal():
            continue
        name = directory.parent.name
        newest[name] = max(directory, newest.get(name, directory), key=lambda path: int(path.name))
    return [newest[name] for name in sorted(newest)]


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
        name=re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_") or "model",
        version=None,
        path=path,
        predictor=predictor,
        self_check=self_check,
        is_short=self_check.median_seconds < opening.inline_seconds,
        batching=batching,
        batches=predictor.open_batches(batching),
    )


def choose_batching(
    predictor: Predictor, examples: Sequence[Example], self_check: SelfCheck, opening: Opening
) -> Batching:
    """A long model runs in its own thread, one instance at a time; a short one in the batches that it may."""
    if self_check.median_seconds >= opening.inline_seconds:
        return Batching(reason="the model runs in a thread of its own")
    return predictor.plan_batching(examples, self_check, bitwise=opening.bitwise)


def _choose_default(models: dict[str, ServedModel], default_model: str | None) -> ServedModel | None:
    if default_model is None:
        return next(iter(models.values())) if len(models) == 1 else None
    if default_model not in models:
        raise BundleNotFound(f"the default model {default_model!r} is not there: there are {', '.join(sorted(models))}")
    return models[default_model]
