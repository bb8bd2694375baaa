"""What one of several processes takes of an epoch: every n-th of the whole, and all of them equally much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from torch.utils.data import DistributedSampler

from model_export.data.reindex import has_usual_batches, reads_by_index, rebatch, reindex

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of an epoch is this process's: the `rank`-th, from 0 on, of `of`."""

    rank: int = 0
    of: int = 1

    def take(self, items: Sequence[T]) -> list[T]:
        """The items rank, rank + of, … of those given; where `of` does not divide them, they are filled up from the
        start, so that at most of − 1 of them are taken twice.
        """  # noqa: D205
        num_taken = math.ceil(len(items) / self.of)
        return [items[place % len(items)] for place in range(self.rank, num_taken * self.of, self.of)]

    def seed(self, common: int) -> int:
        """A seed of this process's own, from one that all have; the first process keeps that."""
        if self.rank == 0:
            return common
        return int(np.random.SeedSequence((common, self.rank)).generate_state(1, np.uint64)[0] >> np.uint64(1))


ALL = Share()


def take_share(loader: Any, share: Share) -> Any:
    """A loader of this process's share of what `loader` gives in an epoch.

    The loader's own sampler is asked for the whole epoch, which must be the same in all processes: it has to draw from
    generators that were seeded alike. Its indices, or the batches of a batch sampler of the user's own, are then dealt
    out. A loader that can not be asked (an iterable dataset, another type of loader, a DistributedSampler that is there
    already) is taken as it is: it has to give each process another part itself.
    """
    if share.of == 1 or not reads_by_index(loader) or isinstance(loader.sampler, DistributedSampler):
        return loader
    if has_usual_batches(loader):
        return reindex(loader, share.take(list(loader.sampler)), drop_last=loader.drop_last)
    return rebatch(loader, share.take(list(loader.batch_sampler or ())))
