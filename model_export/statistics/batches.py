"""A training set in batches, as a network takes them: on its device, and in its precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model_export.errors import StatisticsInvalid

BATCH_SIZE = 256


class Stream(Protocol):
    """Batches of instances that need not fit in memory: the same ones, in the same order, each time it is iterated."""

    def __len__(self) -> int:
        """How many batches there are."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Each batch, shape (B, …)."""


Instances = torch.Tensor | NDArray[np.generic] | Stream


@dataclass(frozen=True)
class Batches:
    """`instances`, shape (N, …), `size` at a time and as often as asked; the last batch may be smaller.

    A stream comes in the batches that it is made of, whatever `size` is.
    """

    instances: Instances
    size: int
    network: nn.Module

    def __post_init__(self) -> None:
        if self.size < 1:
            raise StatisticsInvalid(f"the batch size must be at least 1, not {self.size}")
        if not len(self.instances):
            raise StatisticsInvalid("there are no instances to measure statistics over: pass the training set")

    def __len__(self) -> int:
        return math.ceil(len(self.instances) / self.size) if _in_memory(self.instances) else len(self.instances)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (batch for _, batch in self.numbered(lambda _: True))

    def numbered(self, owns: Callable[[int], bool]) -> Iterator[tuple[int, torch.Tensor]]:
        """The batches for whose number, from 0 on, `owns` is true, with their numbers."""
        like = _any_weight(self.network)
        for index, batch in self._raw(owns):
            yield index, _as_taken(batch, like)

    def _raw(self, owns: Callable[[int], bool]) -> Iterator[tuple[int, torch.Tensor | NDArray[np.generic]]]:
        if isinstance(self.instances, torch.Tensor | np.ndarray):
            for index in filter(owns, range(len(self))):
                yield index, self.instances[index * self.size : (index + 1) * self.size]
        else:
            yield from ((index, batch) for index, batch in enumerate(self.instances) if owns(index))


def _in_memory(instances: Instances) -> bool:
    return isinstance(instances, torch.Tensor | np.ndarray)


def _as_taken(batch: torch.Tensor | NDArray[np.generic], like: torch.Tensor) -> torch.Tensor:
    """A copy, for a network may write over its input. Whole numbers, such as an embedding's indices, stay whole."""
    tensor = batch.detach() if isinstance(batch, torch.Tensor) else torch.from_numpy(np.array(batch, order="C"))
    return tensor.to(like.device, like.dtype if tensor.is_floating_point() else tensor.dtype, copy=True)


def _any_weight(network: nn.Module) -> torch.Tensor:
    tensors = chain(network.parameters(), network.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
