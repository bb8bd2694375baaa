"""Batches of data that lies in memory: one index operation each, where a DataLoader collates single instances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model_export.data import Split


@dataclass(frozen=True, eq=False)
class Batches:
    """(instances float32 [B, *shape], labels int64 [B]), again and again from the start.

    With a `shuffle_seed` in the order that this seed gives, always the same; without one in the split's order. A last
    batch of one would have no variance for BatchNorm to learn from: that instance joins the batch before it, so that
    each instance is seen once in each epoch.
    """

    split: Split
    size: int
    shuffle_seed: int | None = None

    def __len__(self) -> int:
        num_batches, rest = divmod(len(self.split), self.size)
        return max(1, num_batches + (rest > 1))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        instances, labels = torch.from_numpy(self.split.instances), torch.from_numpy(self.split.labels)
        order = self._order()
        ends = [*range(self.size, len(order), self.size)][: len(self) - 1]
        for indices in torch.tensor_split(order, ends):
            yield instances[indices], labels[indices]

    def _order(self) -> Tensor:
        if self.shuffle_seed is None:
            return torch.arange(len(self.split))
        generator = torch.Generator().manual_seed(self.shuffle_seed)
        return torch.randperm(len(self.split), generator=generator)
