"""Batches of data that lies in memory: one index operation each, where a DataLoader collates single instances."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model_export.data import Split
from model_export.data.share import ALL, Share


@dataclass(frozen=True, eq=False)
class Batches:
    """(instances float32 [B, *shape], labels int64 [B]), again and again from the start.

    With a `shuffle_seed` in the order that this seed gives, always the same; without one in the split's order. A last
    batch of one would have no variance for BatchNorm to learn from: that instance joins the batch before it, so that
    each instance is seen once in each epoch.

    Of several processes with the same seed, the one of rank r takes the instances r, r + n, r + 2n, … of the order, and
    all have equally many batches. So that all have equally many instances too, a shuffled order that n does not divide
    is filled up from its own start: at most n − 1 instances are seen twice. An order that is not shuffled serves to
    measure and is not filled up, so the batches of some processes may be smaller by one instance.
    """

    split: Split
    size: int
    shuffle_seed: int | None = None
    share: Share = ALL

    def __len__(self) -> int:
        num_batches, rest = divmod(math.ceil(len(self.split) / self.share.of), self.size)
        return max(1, num_batches + (rest > 1))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        instances, labels = torch.from_numpy(self.split.instances), torch.from_numpy(self.split.labels)
        order = self._order()[self.share.rank :: self.share.of]
        ends = [*range(self.size, len(order), self.size)][: len(self) - 1]
        for indices in torch.tensor_split(order, ends):
            yield instances[indices], labels[indices]

    def _order(self) -> Tensor:
        if self.shuffle_seed is None:
            return torch.arange(len(self.split))
        generator = torch.Generator().manual_seed(self.shuffle_seed)
        order = torch.randperm(len(self.split), generator=generator)
        return torch.cat((order, order[: -len(order) % self.share.of]))
