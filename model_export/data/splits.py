"""What data is to the rest of the room: a source that can be loaded again, three splits of it, and their digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_export.errors import DataInvalid
from model_export.wording import some
from service.bundle import Feature, ImageSpec

if TYPE_CHECKING:
    from model_export.data.stream import CalibrationStream, StreamedSplit

MIN_INSTANCES_OF_A_CLASS = 5  # three to learn from, one to choose the best epoch with, one to test with


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where the data is and how it is cut: all that is needed to load the same splits again, in JSON's types.

    Attributes:
        spec: `digits`, `fashion-mnist`, the path of a .csv, .parquet or .npz file or of a folder of images, or data of
            one's own as `package.module:name`, which is cut already.
        target: for a table, the column that holds the class.
        ignore: for a table, the columns to leave out.
        directory: for fashion-mnist, the folder with its four IDX files; None is where Debian's package puts them.
        seed: decides which instance falls into which split, and nothing else.
        valid_fraction: the share of each class that chooses the best epoch.
        test_fraction: the share of each class that is held out. Fashion-MNIST brings its own test split instead.
    """

    spec: str
    target: str | None = None
    ignore: tuple[str, ...] = ()
    directory: str | None = None
    seed: int = 0
    valid_fraction: float = 0.1
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        for name, fraction in (("valid_fraction", self.valid_fraction), ("test_fraction", self.test_fraction)):
            if not 0 < fraction < 0.5:
                raise DataInvalid(f"{name} is {fraction}: expected a share above 0 and below 0.5")
        if self.seed < 0:
            raise DataInvalid(f"the data's seed is {self.seed}: expected 0 or more")


@dataclass(frozen=True, eq=False)
class Split:
    """`instances` float32 [N, *shape], C-contiguous and finite; `labels` int64 [N], indices into `Splits.labels`."""

    instances: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Split:
        """The instances at `indices`, in that order, copied."""
        return Split(self.instances[indices], self.labels[indices])


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """A whole data set before it is cut.

    `features` is empty unless the instances are rows of a table; `image` is None unless a picture can become one.
    """

    name: str
    everything: Split
    labels: tuple[str, ...]
    features: tuple[Feature, ...] = ()
    image: ImageSpec | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """The three splits, which share no instance, and what their numbers mean.

    `labels` are the classes' names. `features` is empty unless the instances are rows of a table; `image` says how a
    picture becomes an instance, if one can. `sha256` covers all three splits, labels and features: whoever loads the
    data again sees whether it is still the same. Of data of one's own the training split is a stream, which the digest
    does not cover (see `own.py`).
    """

    name: str
    train: Split | StreamedSplit
    valid: Split
    test: Split
    labels: tuple[str, ...]
    features: tuple[Feature, ...] = ()
    image: ImageSpec | None = None
    sha256: str

    @property
    def instance_shape(self) -> tuple[int, ...]:
        """The shape of one instance, without the batch axis."""
        return self.valid.instances.shape[1:]

    @property
    def calibration(self) -> NDArray[np.float32] | CalibrationStream:
        """What statistics are measured over: the training instances [N, *shape], or a stream of batches of them."""
        return self.train.instances if isinstance(self.train, Split) else self.train.calibration


def cut(data: Labelled, source: DataSource) -> Splits:
    """Cut `data` into three splits, each class in each of them in the same share.

    Raises:
        DataInvalid: there is one class only, or a class has too few instances.
    """
    _check_classes(data)
    rest, test = stratify(data.everything, fraction=source.test_fraction, seed=source.seed)
    train, valid = stratify(rest, fraction=source.valid_fraction / (1 - source.test_fraction), seed=source.seed + 1)
    splits = make_splits(data.name, (train, valid, test), labels=data.labels, features=data.features)
    return replace(splits, image=data.image)


def make_splits(
    name: str, parts: tuple[Split, Split, Split], *, labels: tuple[str, ...], features: tuple[Feature, ...] = ()
) -> Splits:
    """Put train, valid and test together, with their digest."""
    train, valid, test = parts
    sha256 = digest_splits(parts, labels, features)
    return Splits(name=name, train=train, valid=valid, test=test, labels=labels, features=features, sha256=sha256)


def stratify(split: Split, *, fraction: float, seed: int) -> tuple[Split, Split]:
    """Take `fraction` of each class, rounded but at least one, at random: (what is left, what was taken).

    Both keep the order that `split` had. scikit-learn's `train_test_split` would do, but may give a small class no
    place in a small split.
    """
    random = np.random.default_rng(seed)
    taken = np.zeros(len(split), dtype=bool)
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        num_taken = max(1, round(fraction * len(members)))
        taken[random.permutation(members)[:num_taken]] = True
    return split.take(np.flatnonzero(~taken)), split.take(np.flatnonzero(taken))


def _check_classes(data: Labelled) -> None:
    counts = np.bincount(data.everything.labels, minlength=len(data.labels))
    if len(data.labels) < 2:
        raise DataInvalid(f"{data.name}: expected two classes at least, found {', '.join(data.labels) or 'none'}")
    small = [f"{data.labels[i]!r} ({counts[i]})" for i in np.flatnonzero(counts < MIN_INSTANCES_OF_A_CLASS)]
    if small:
        raise DataInvalid(
            f"{data.name}: each class needs {MIN_INSTANCES_OF_A_CLASS} instances at least to be in every split, "
            f"too few have: {some(small)}. Gather more, or merge or drop these classes"
        )


def digest_splits(parts: tuple[Split, ...], labels: tuple[str, ...], features: tuple[Feature, ...]) -> str:
    """SHA-256, in hexadecimal, of splits, classes and features."""
    sha256 = hashlib.sha256(msgspec.json.encode((labels, features)))
    for part in parts:
        sha256.update(repr(part.instances.shape).encode())
        sha256.update(np.ascontiguousarray(part.instances, dtype="<f4").data)
        sha256.update(np.ascontiguousarray(part.labels, dtype="<i8").data)
    return sha256.hexdigest()
