"""A training set that need not fit in memory: what trains on it, and what statistics are measured over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_export.data.draws import Draws
from model_export.data.labelled_batch import LabelledBatch, check_batch
from model_export.data.share import ALL, Share, take_share
from model_export.data.whole import whole_set
from model_export.errors import DataInvalid, ExportError
from model_export.ones_own import current_folder_importable

CALIBRATION_SEED = 0
MakeLoader = Callable[[], Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class CalibrationStream:
    """Every training instance, in batches float32 [B, *shape]: the same in the same order, each time it is iterated.

    They come from a loader of the user's, from which the whole set in order is made as `whole.py` says. What its
    dataset draws at random (an augmentation) is drawn from a fixed seed: it is the same each time, but it is not the
    plain training set. For that a module defines `calibration_dataloader()`.

    What can not be seen here: worker processes that keep their own state between iterations, and randomness from
    elsewhere than torch, numpy, Python's `random` or the loader's own generator.
    """

    name: str
    make_loader: MakeLoader

    def __len__(self) -> int:
        """How many batches there are; where the loader can not tell, one pass counts them."""
        return self._counts[0]

    def __iter__(self) -> Iterator[Tensor]:
        for instances, _ in self._batches():
            yield instances

    @property
    def num_instances(self) -> int:
        """How many training instances there are; where the loader can not tell, one pass counts them."""
        return self._counts[1]

    @property
    def known_num_instances(self) -> int | None:
        """The same, or None where only a pass could tell."""
        with told(self.name), Draws(CALIBRATION_SEED).taken():
            return self._open()[1]

    @cached_property
    def _counts(self) -> tuple[int, int]:
        with told(self.name), Draws(CALIBRATION_SEED).taken():
            loader, num_instances = self._open()
            if num_instances is not None:
                return len(loader), num_instances
        sizes = [len(instances) for instances in self]
        return len(sizes), sum(sizes)

    def _open(self) -> tuple[Any, int | None]:
        return whole_set(self.make_loader())

    def _batches(self) -> Iterator[LabelledBatch]:
        draws = Draws(CALIBRATION_SEED)
        with told(self.name), draws.taken():
            loader, _ = self._open()
        return fetch(seeded(loader, CALIBRATION_SEED), draws, where=self.name)


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamEpoch:
    """One process's share of one epoch, checked: `num_batches` of (instances float32 [B, *shape], labels int64 [B]).

    The loader is iterated when the first batch is asked for, not before; `draws` are its random draws.
    """

    name: str
    loader: Any
    draws: Draws
    num_labels: int
    num_batches: int

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[LabelledBatch]:
        batches = fetch(self.loader, self.draws, where=self.name, num_labels=self.num_labels)
        return islice(batches, self.num_batches)


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedSplit:
    """The training split of a user's data module: `make_loader()` is its `train_dataloader()`, to be called each epoch.

    It has no arrays: it is opened for each epoch anew. `len()` is the number of instances; where the loader can not
    tell, one pass counts them.
    """

    name: str
    make_loader: MakeLoader
    calibration: CalibrationStream

    @property
    def batch_size(self) -> int | None:
        """How many instances the user's loader puts into a batch, where it says so."""
        with told(self.name), Draws(CALIBRATION_SEED).taken():
            loader = self.make_loader()
            sampler = getattr(loader, "batch_sampler", None)
            return getattr(loader, "batch_size", None) or getattr(sampler, "batch_size", None)

    def __len__(self) -> int:
        return self.calibration.num_instances

    @property
    def instances(self) -> NDArray[np.float32]:
        """There is no such array.

        Raises:
            DataInvalid: always; says what to use instead.
        """
        self._refuse("instances")

    @property
    def labels(self) -> NDArray[np.int64]:
        """There is no such array.

        Raises:
            DataInvalid: always; says what to use instead.
        """
        self._refuse("labels")

    def _refuse(self, what: str) -> NoReturn:
        raise DataInvalid(
            f"{self.name}: the training {what} are a stream that is not held in memory: go over the batches of "
            "Splits.calibration instead"
        )

    def epoch(self, seed: int, *, num_labels: int, share: Share = ALL, num_batches: int | None = None) -> StreamEpoch:
        """What this process trains on in one epoch; whatever the loader draws at random follows from `seed`.

        `num_batches` is how many there are to be, if fewer than the loader has: processes must have equally many.

        Raises:
            DataInvalid: the user's code failed, or its loader has no length.
        """
        order_draws, own_seed = Draws(seed), share.seed(seed)
        with told(self.name), order_draws.taken():
            loader = take_share(seeded(self.make_loader(), seed), share)
        length = self._length(loader)
        return StreamEpoch(
            name=self.name,
            loader=seeded(loader, own_seed) if share.of > 1 else loader,
            draws=Draws(own_seed),
            num_labels=num_labels,
            num_batches=length if num_batches is None else min(length, num_batches),
        )

    def _length(self, loader: Any) -> int:
        try:
            return len(loader)
        except TypeError as err:
            raise DataInvalid(
                f"{self.name}: expected a loader with a length, for the learning rate's schedule must know how many "
                "steps there will be: give the iterable dataset a __len__ (the number of its instances)"
            ) from err


def fetch(loader: Any, draws: Draws, *, where: str, num_labels: int | None = None) -> Iterator[LabelledBatch]:
    """The loader's batches, checked. Each is made with the random draws of `draws`; in between, the caller's are his.

    Raises:
        DataInvalid: the user's code failed, or gave something else than batches.
    """
    with told(where), draws.taken():
        batches = iter(loader)
    while True:
        with told(where), draws.taken():
            batch = next(batches, None)
        if batch is None:
            return
        yield check_batch(batch, where=where, num_labels=num_labels)


@contextmanager
def told(name: str) -> Iterator[None]:
    """Run a user's code, importing from the current folder; what it raises is told with its name.

    Raises:
        DataInvalid: the code failed.
    """
    with current_folder_importable():
        try:
            yield
        except ExportError:
            raise
        except Exception as err:
            raise DataInvalid(f"{name} failed: {err!r}") from err


def seeded(loader: Any, seed: int) -> Any:
    """The loader, with its own generators, if it has any, set to `seed`: another process's may be elsewhere."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    holders = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    for holder in holders:
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
    return loader
