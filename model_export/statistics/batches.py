"""A training set in batches, as a network takes them: on its device, and in its precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model_export.errors import StatisticsInvalid

Instances = torch.Tensor | NDArray[np.generic]
BATCH_SIZE = 256


@dataclass(frozen=True)
class Batches:
    """`instances`, shape (N, …), `batch_size` at a time and as often as asked; the last batch may be smaller."""

    instances: Instances
    batch_size: int
    network: nn.Module

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise StatisticsInvalid(f"the batch size must be at least 1, not {self.batch_size}")
        if not len(self.instances):
            raise StatisticsInvalid("there are no instances to measure statistics over: pass the training set")

    def __len__(self) -> int:
        return math.ceil(len(self.instances) / self.batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        like = _any_weight(self.network)
        for start in range(0, len(self.instances), self.batch_size):
            yield _as_taken(self.instances[start : start + self.batch_size], like)


def _as_taken(batch: Instances, like: torch.Tensor) -> torch.Tensor:
    """Whole numbers, such as the indices of an embedding, stay whole."""
    tensor = batch if isinstance(batch, torch.Tensor) else torch.tensor(batch)
    return tensor.to(like.device, like.dtype if tensor.is_floating_point() else tensor.dtype)


def _any_weight(network: nn.Module) -> torch.Tensor:
    tensors = chain(network.parameters(), network.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
