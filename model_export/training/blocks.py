"""Several steps in what Lightning takes for one batch, because its bookkeeping of a batch has a price.

On a CPU that is about 0.5 ms, where a step of the book's network takes 3.5 ms (`make bench-train`); shared by ten steps
it is lost in the noise. DDP prepares its exchange of gradients once for each batch of Lightning's, so where several
processes train a block is one batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from model_export.batches import Batches
from model_export.data.stream import StreamEpoch

BATCHES_IN_A_BLOCK = 10

Block = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Blocks:
    """An epoch's batches in their order, `size` in a block; each is made when the step that takes it begins."""

    batches: Batches | StreamEpoch
    size: int

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / self.size)

    def __iter__(self) -> Iterator[Block]:
        batches = iter(self.batches)
        for _ in range(len(self)):
            yield islice(batches, self.size)
