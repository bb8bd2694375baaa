"""The data of a study: as much of the splits as it asks for, in memory, for hundreds of short runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from model_export.data import Split, Splits
from model_export.data.splits import stratify
from model_export.errors import DataInvalid
from model_export.study.trials import Settings

NUM_CALIBRATION = 1000  # instances that exact statistics are measured over while a run goes on; at its end, all


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """What all trials of a study share.

    Attributes:
        name: what the data set is called.
        train: what is learned from, and what the statistics of a finished run are measured over.
        valid: what curves are drawn and learning rates chosen by.
        test: what accuracies are told of.
        num_classes: how many there are.
        chance: the accuracy of always naming the most frequent class of the test split.
        sha256: of all that was drawn from the splits.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    num_classes: int
    chance: float
    sha256: str

    @property
    def instance_shape(self) -> tuple[int, ...]:
        """The shape of one instance, without the batch axis."""
        return self.train.instances.shape[1:]

    @property
    def calibration(self) -> Split:
        """The first training instances: over these statistics are measured while a run goes on."""
        return Split(self.train.instances[:NUM_CALIBRATION], self.train.labels[:NUM_CALIBRATION])


def draw_data(splits: Splits, settings: Settings) -> Data:
    """Draw what the settings ask for, each class in its share, in a random order that is always the same.

    Raises:
        DataInvalid: the training split is a stream, not an array.
    """
    if not isinstance(splits.train, Split):
        raise DataInvalid(
            f"{splits.name}: the study trains hundreds of networks on data in memory, and this training split is a "
            "stream: write the instances to study into an .npz file (arrays `instances` and `labels`) and name it"
        )
    parts = tuple(
        _draw(split, most)
        for split, most in (
            (splits.train, settings.num_train),
            (splits.valid, settings.num_valid),
            (splits.test, settings.num_test),
        )
    )
    train, valid, test = parts
    return Data(
        name=splits.name,
        train=train,
        valid=valid,
        test=test,
        num_classes=len(splits.labels),
        chance=float(np.bincount(test.labels).max() / len(test)),
        sha256=_digest(parts),
    )


def _draw(split: Split, most: int) -> Split:
    drawn = split if len(split) <= most else stratify(split, fraction=most / len(split), seed=0)[1]
    return drawn.take(np.random.default_rng(0).permutation(len(drawn)))


def _digest(parts: tuple[Split, ...]) -> str:
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(repr(part.instances.shape).encode())
        sha256.update(np.ascontiguousarray(part.instances, dtype="<f4").data)
        sha256.update(np.ascontiguousarray(part.labels, dtype="<i8").data)
    return sha256.hexdigest()
