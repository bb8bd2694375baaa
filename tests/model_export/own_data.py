"""Data modules as users write them: a small set of images, whole and augmented, well-made and not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

NUM_TRAIN, NUM_OTHERS, NUM_LABELS = 101, 40, 3


class Points(Dataset[tuple[Tensor, int]]):
    """Points of two classes' width around three centres; `noisy` ones are drawn anew each time, from all generators."""

    def __init__(self, size: int, *, seed: int, noisy: bool = False) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(size) % NUM_LABELS
        self.points = torch.randn(size, 4, generator=draw) + 4.0 * self.labels[:, None]
        self.noisy = noisy

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        point = self.points[index]
        if self.noisy:
            point = point + 0.1 * (torch.rand(4) + np.random.rand() + random.random())  # noqa: NPY002, S311
        return point, int(self.labels[index])


class Plain(lightning.LightningDataModule):
    """Nothing that is drawn at random but the order."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Points(NUM_TRAIN, seed=0), batch_size=16, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Points(NUM_OTHERS, seed=1), batch_size=16)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Points(NUM_OTHERS, seed=2), batch_size=16)


class Noisy(Plain):
    """Augmented, with a calibration set that is not."""

    labels = ("low", "middle", "high")
    num_workers = 0

    def train_dataloader(self) -> DataLoader[Any]:
        points = Points(NUM_TRAIN, seed=0, noisy=True)
        return DataLoader(points, batch_size=16, shuffle=True, drop_last=True, num_workers=self.num_workers)

    def calibration_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Points(NUM_TRAIN, seed=0), batch_size=32)


class NoisyEverywhere(Noisy):
    """The same without a set of its own to measure over."""

    calibration_dataloader = None  # type: ignore[assignment]


class NoisyEverywhereInWorkers(NoisyEverywhere):
    """The same, made in two worker processes."""

    num_workers = 2


class InWorkers(Noisy):
    """Augmented, made in two worker processes."""

    num_workers = 2


class Endless(IterableDataset[Any]):
    """A stream of points without a length."""

    def __iter__(self) -> Iterator[Any]:
        yield from (Points(NUM_TRAIN, seed=0)[index] for index in range(NUM_TRAIN))


class WithoutLength(Plain):
    """Trains on a dataset that has no length."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Endless(), batch_size=16)


class WithoutTest(lightning.LightningDataModule):
    """Has a loader too few."""

    train_dataloader = Plain.train_dataloader
    val_dataloader = Plain.val_dataloader


class Broken(Plain):
    """Fails while it is set up."""

    def setup(self, stage: str) -> None:
        raise RuntimeError(f"no such luck in {stage}")


class BrokenLater(Plain):
    """Fails in the middle of an epoch."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Points(NUM_TRAIN, seed=0), batch_size=16, collate_fn=_fail)


class Unlabelled(Plain):
    """Gives instances without labels."""

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.randn(8, 4), batch_size=4)  # type: ignore[arg-type]  # what users do


class TooFewNames(Plain):
    """Names two of three classes."""

    labels = ("low", "middle")


class Infinite(Plain):
    """Holds a value that is no number."""

    def test_dataloader(self) -> DataLoader[Any]:
        points = Points(NUM_OTHERS, seed=2)
        points.points[3, 1] = torch.inf
        return DataLoader(points, batch_size=16)


class MoreClassesInTraining(Plain):
    """Its training split has a class that no other split has."""

    def train_dataloader(self) -> DataLoader[Any]:
        points = Points(NUM_TRAIN, seed=0)
        points.labels[50] = NUM_LABELS
        return DataLoader(points, batch_size=16)


class OneLeft(Plain):
    """Its last batch is one instance."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Points(33, seed=0), batch_size=16)


def make() -> lightning.LightningDataModule:
    """A function does as well."""
    return Plain()


def number() -> int:
    """But not any."""
    return 3


def _fail(_: Any) -> Any:
    raise OSError("the disk is gone")
