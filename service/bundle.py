"""The door between the two rooms: what a bundle is, how one is written and how one is read.

Format, version 1. A bundle is a directory `<name>/<version>/` with three files and no pickle:

    model.onnx       the model. Axis 0 of its input and of its outputs is the batch.
    examples.json    held-out instances as a client posts them, with the unfolded network's answers
    manifest.json    everything else (`Manifest` below, as JSON), with the SHA-256 of the two others

The manifest is written last and by an atomic rename: a directory without one is not a bundle yet. A reader takes
`format_version` first and refuses, by name, a format that it does not know; inside a format version fields may be
added, and readers pass over fields that they do not know.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from service.errors import (
    BundleExists,
    BundleNotFound,
    BundleUnwritable,
    DigestMismatch,
    FormatVersionUnknown,
    ManifestInvalid,
)

FORMAT_VERSION = 1
MODEL_FILE = "model.onnx"
EXAMPLES_FILE = "examples.json"
MANIFEST_FILE = "manifest.json"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
FORBIDDEN_IN_FEATURES = re.compile(r'["\\\x00-\x1f\x7f]')
MAX_QUOTED = 80
VERSION_PATTERN = re.compile(r"[1-9][0-9]{0,17}")

Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One tensor of ONE instance: `shape` has no batch axis. dtypes are numpy's names."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One named column of a table. With categories it takes one of these words, without it takes a number.

    In the model's input a number is one value; a category is `len(categories)` values, one of them 1, the others 0.
    """

    name: str
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many values of the model's input this feature fills."""
        return len(self.categories) or 1


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """How a picture becomes the model's input. It must have this mode and size: nothing is converted or resized.

    `mode` is Pillow's: L has one value for each pixel, RGB three. A value v of the picture, 0..255, becomes
    v·scale + offset, in double precision, and the nearest whole number if the values are `whole`; then it is rounded to
    the input's dtype. The input has the picture's axes in the order of `layout`, with or without axes of length 1, or
    is flat.
    """

    mode: Literal["L", "RGB"]
    height: int
    width: int
    layout: Literal["CHW", "HWC"] = "CHW"
    scale: float = 1.0
    offset: float = 0.0
    whole: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The picture's axes, in the order of the layout."""
        num_channels = 1 if self.mode == "L" else 3
        sizes = {"C": num_channels, "H": self.height, "W": self.width}
        return tuple(sizes[axis] for axis in self.layout)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What one instance is and what comes back for it.

    `outputs[0]` are the scores, one a label. `features` is empty unless the instances are rows of a table; then the
    input has one axis, as long as the sum of the features' widths. Empty `labels` mean that the label is the index.
    With `image` an instance may also come as a picture.
    """

    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()
    image: ImageSpec | None = None


@dataclass(frozen=True, kw_only=True)
class Example:
    """One held-out instance, as JSON that a client can post, and what the unfolded network answers to it in float64.

    `outputs` has one flat tuple for each output of the signature; `label` is the true one, where it is known.
    """

    instance: Any
    outputs: dict[str, tuple[float, ...]]
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class LayerStatistics:
    """How one BatchNorm's frozen statistics came about, and how well they fit the training set.

    `residual_mean` and `residual_variance` are the largest deviations, over channels, of the normalised input's mean
    from 0 and of its biased variance from σ²/(σ²+ε), measured over the training set with all BatchNorms frozen.
    `constant_channels` had (nearly) no variance in training: another value there is amplified by up to `max_gain`,
    the largest |γ|/√(σ²+ε).
    """

    batchnorm: str
    num_channels: int
    num_values: int
    eps: float
    max_gain: float
    constant_channels: tuple[int, ...] = ()
    residual_mean: float | None = None
    residual_variance: float | None = None


@dataclass(frozen=True, kw_only=True)
class StatisticsReport:
    """The kind of the frozen statistics, and how they fit.

    `ema` is the moving average as trained; `exact` was measured front to back, each BatchNorm behind frozen ones;
    `precise` in one pass behind batch-normalised layers. They were measured over `num_instances`, which is a sample if
    it is less than `num_training_instances` (None in bundles of old: all). Forward never comes to the `unreached`.
    """

    method: Literal["ema", "exact", "precise"]
    num_instances: int
    layers: tuple[LayerStatistics, ...] = ()
    num_training_instances: int | None = None
    unreached: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """What became of one BatchNorm: folded into layers, merged into another BatchNorm, or kept for a reason.

    `form` is how the graph spelled it: as one node, or as arithmetic by constants. `axis` is that of the channels,
    `path` are the nodes in between, `error` is what the check of this fold measured in float64, relative to the
    largest value. `blocked_by` are the nodes that keep it from being folded.
    """

    batchnorm: str
    outcome: Literal["folded", "merged", "kept"]
    into: tuple[str, ...] = ()
    direction: Literal["previous", "next", "parallel", ""] = ""
    path: tuple[str, ...] = ()
    reason: str = ""
    form: Literal["BatchNormalization", "decomposed"] = "BatchNormalization"
    axis: int | None = None
    blocked_by: tuple[str, ...] = ()
    error: float | None = None


@dataclass(frozen=True, kw_only=True)
class FoldReport:
    """The ledger: an entry for each BatchNorm of the raw graph, and the number of nodes before and after."""

    entries: tuple[LedgerEntry, ...]
    num_nodes_before: int
    num_nodes_after: int


@dataclass(frozen=True, kw_only=True)
class OutputParity:
    """One output, served against trained: largest and mean absolute difference, and the largest that is allowed."""

    output: str
    max_difference: float
    mean_difference: float
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """The unfolded network against the service's own predictor, over the held-out split.

    `label_agreement` is the share of instances for which both name the same label. `reference_dtype` is what the
    unfolded network computed in: float64, unless it can not. `provider` is ONNX Runtime's, which ran the predictor.
    """

    num_instances: int
    outputs: tuple[OutputParity, ...]
    label_agreement: float
    reference_dtype: str
    provider: str


@dataclass(frozen=True, kw_only=True)
class PrecisionReport:
    """A model in a lower precision beside the float32 model that it was made of, both served, over the held-out split.

    `label_agreement` is the share of instances for which both name the same label, `max_score_difference` the largest
    difference of a score between them. `float32_layers` were not lowered; `standardised` is the layer whose input int8
    scales in float32, or empty. int8's ranges were taken over `num_calibration_instances` of the training set. Where
    the device that verified does not round every value, `rounded_accuracy` and `rounded_score_difference` are what came
    of rounding them all.
    """

    name: Precision
    num_instances: int
    accuracy: float
    fp32_accuracy: float
    max_accuracy_drop: float
    label_agreement: float
    max_score_difference: float
    model_bytes: int
    fp32_model_bytes: int
    float32_layers: tuple[str, ...] = ()
    standardised: str = ""
    num_calibration_instances: int | None = None
    rounded_accuracy: float | None = None
    rounded_score_difference: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """Where the weights came from and how good they are on the held-out split."""

    data: str
    network: str
    seed: int
    num_epochs: int
    num_train: int
    num_test: int
    test_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The description of a bundle. `files` maps each other file's name to its SHA-256, in hexadecimal.

    Without a `precision` the model computes in float32, as those of old bundles do.
    """

    name: str
    version: str
    signature: Signature
    statistics: StatisticsReport
    fold: FoldReport
    parity: ParityReport
    training: TrainingReport
    producer: dict[str, str]
    created: str
    files: dict[str, str] = field(default_factory=dict)
    precision: PrecisionReport | None = None
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was read: its files were, byte for byte, what the manifest says."""

    directory: Path
    manifest: Manifest
    examples: tuple[Example, ...]

    @property
    def model_path(self) -> Path:
        """Where the model lies."""
        return self.directory / MODEL_FILE


def read_bundle(directory: Path) -> Bundle:
    """Read the bundle in `directory`, digests checked.

    Raises:
        BundleNotFound: there is no manifest, or a file that it names is not there.
        ManifestInvalid: the manifest, or the examples, are not of the form above.
        FormatVersionUnknown: the bundle has another format version.
        DigestMismatch: a file is not the one that was written.
    """
    manifest = read_manifest(directory / MANIFEST_FILE)
    for name, sha256 in manifest.files.items():
        _check_digest(directory, name, sha256)
    examples = _decode(directory / EXAMPLES_FILE, tuple[Example, ...])
    return Bundle(directory=directory, manifest=manifest, examples=examples)


def write_bundle(
    directory: Path,
    *,
    manifest: Manifest,
    model_path: Path,
    examples: tuple[Example, ...],
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle to `directory`, whose last two parts must be the manifest's name and version.

    The digests are computed here; `manifest.files` is not looked at.

    Raises:
        ManifestInvalid: name, version or a feature's name is not allowed, or the directory has other names.
        BundleExists: there is a bundle already, and `overwrite` is false.
        BundleUnwritable: the operating system does not let us write there.
    """
    check_name_and_version(manifest.name, manifest.version)
    _check_features(manifest.signature)
    _check_place(directory, manifest)
    try:
        written = _write_files(directory, manifest, model_path, examples, overwrite=overwrite)
    except OSError as err:
        raise BundleUnwritable(f"the bundle can not be written to {directory}: {err}") from err
    return Bundle(directory=directory, manifest=written, examples=examples)


def check_name_and_version(name: str, version: str) -> None:
    """Refuse names that could not stand in a URL or leave the root, and versions that have no order.

    Raises:
        ManifestInvalid: and says which of the two, and what would do.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise ManifestInvalid(
            f"the model name {name!r} is not allowed: expected 1 to 64 letters, digits, '_' or '-', "
            "the first a letter or digit"
        )
    if not VERSION_PATTERN.fullmatch(version):
        raise ManifestInvalid(f"the model version {version!r} is not allowed: expected a whole number such as 1")


def check_free(directory: Path, *, overwrite: bool) -> None:
    """Make sure that a bundle may be written to `directory`, and touch nothing.

    Raises:
        BundleExists: there is a bundle already, and `overwrite` is false.
        BundleUnwritable: a part of its path is a file.
    """
    in_the_way = next((path for path in (directory, *directory.parents) if path.exists() and not path.is_dir()), None)
    if in_the_way is not None:
        raise BundleUnwritable(f"the bundle can not be written to {directory}: {in_the_way} is no directory")
    if (directory / MANIFEST_FILE).exists() and not overwrite:
        raise BundleExists(f"{directory} holds a bundle already: write another version, or say --overwrite")


def claim_directory(directory: Path, *, overwrite: bool) -> None:
    """Make `directory` ready to be written: it exists afterwards and holds no manifest.

    Raises:
        BundleExists: there is a bundle already, and `overwrite` is false.
    """
    check_free(directory, overwrite=overwrite)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MANIFEST_FILE).unlink(missing_ok=True)


def _write_files(
    directory: Path, manifest: Manifest, model_path: Path, examples: tuple[Example, ...], *, overwrite: bool
) -> Manifest:
    claim_directory(directory, overwrite=overwrite)
    shutil.copyfile(model_path, directory / MODEL_FILE)
    (directory / EXAMPLES_FILE).write_bytes(_encode(examples))
    files = {name: _sha256(directory / name) for name in (MODEL_FILE, EXAMPLES_FILE)}
    written = replace(manifest, files=files)
    _write_atomically(directory / MANIFEST_FILE, _encode(written))
    return written


def _check_place(directory: Path, manifest: Manifest) -> None:
    place = directory.resolve()
    if (place.parent.name, place.name) != (manifest.name, manifest.version):
        raise ManifestInvalid(
            f"a bundle of model {manifest.name!r}, version {manifest.version!r}, belongs into "
            f"…/{manifest.name}/{manifest.version}, not into {directory}"
        )


def read_manifest(path: Path) -> Manifest:
    """Read a manifest by itself: the other files are not looked at.

    Raises:
        BundleNotFound: there is none.
        ManifestInvalid: it is not of the form above.
        FormatVersionUnknown: the bundle has another format version.
    """
    if not path.is_file():
        raise BundleNotFound(f"no bundle in {path.parent}: it has no {MANIFEST_FILE}")
    _check_format_version(path)
    manifest: Manifest = _decode(path, Manifest)
    missing = {MODEL_FILE, EXAMPLES_FILE} - manifest.files.keys()
    if missing:
        raise ManifestInvalid(f"{path}: `files` has no digest for {', '.join(sorted(missing))}")
    check_name_and_version(manifest.name, manifest.version)
    _check_features(manifest.signature, f"{path}: ")
    _check_image(path, manifest.signature)
    return manifest


def _check_features(signature: Signature, where: str = "") -> None:
    """Refuse names that JSON would not have as they are: requests are read by their bytes."""
    for feature in signature.features:
        if FORBIDDEN_IN_FEATURES.search(feature.name):
            raise ManifestInvalid(
                f"{where}the feature name {feature.name[:MAX_QUOTED]!r} is not allowed: it has a quotation mark, a "
                "backslash or a control character in it; rename the column, and export again"
            )


def _check_image(path: Path, signature: Signature) -> None:
    """Refuse pictures of another size than the input's."""
    image, shape = signature.image, signature.input.shape
    if image is None or shape == (math.prod(image.shape),) or _longer_axes(shape) == _longer_axes(image.shape):
        return
    raise ManifestInvalid(
        f"{path}: `image` says that pictures have the axes {list(image.shape)}, which does not fit the input's shape "
        f"{list(shape)}"
    )


def _longer_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


class _FormatVersion(msgspec.Struct):
    format_version: int


def _check_format_version(path: Path) -> None:
    found = _decode(path, _FormatVersion).format_version
    if found != FORMAT_VERSION:
        raise FormatVersionUnknown(
            f"{path}: the bundle has format version {found}, this foldserve reads version {FORMAT_VERSION}: "
            "export it again, or use the foldserve that wrote it"
        )


def _check_digest(directory: Path, name: str, sha256: str) -> None:
    path = directory / name
    if name in {"", ".", ".."} or Path(name).name != name:
        raise ManifestInvalid(f"{directory / MANIFEST_FILE}: {name!r} is not the name of a file in the bundle")
    if not path.is_file():
        raise BundleNotFound(f"the bundle in {directory} has no {name}, which its manifest names")
    found = _sha256(path)
    if found != sha256:
        raise DigestMismatch(
            f"{path} was changed after it was written: SHA-256 expected {sha256}, found {found}; export it again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decode(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise ManifestInvalid(f"{path}: {err}") from err


def _encode(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def _write_atomically(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".partial")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
