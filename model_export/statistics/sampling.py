"""A sample of the training set, for those who can not wait: what comes of it is labelled as measured over a sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch

from model_export.errors import StatisticsInvalid
from model_export.statistics.batches import Instances, Stream

SEED = 0  # a sample is the same one whenever it is drawn, so that an interrupted measurement can go on with it


def sample(instances: Instances, num_samples: int | None) -> Instances:
    """Draw `num_samples` of the instances at random, in their own order; all of them for None.

    Of a stream they are the first, in whole batches.

    Raises:
        StatisticsInvalid: fewer than two are asked for, or more than there are.
    """
    if num_samples is None:
        return instances
    if num_samples < 2:
        raise StatisticsInvalid(f"--samples is {num_samples}: expected 2 at least, for one has no variance")
    if not isinstance(instances, torch.Tensor | np.ndarray):
        return FirstOf(instances, num_samples)
    if num_samples > len(instances):
        raise _too_many(num_samples, len(instances))
    chosen = np.sort(np.random.default_rng(SEED).choice(len(instances), num_samples, replace=False))
    return instances[torch.from_numpy(chosen)] if isinstance(instances, torch.Tensor) else instances[chosen]


def count_instances(instances: Instances) -> int:
    """How many instances there are; a stream that does not say is counted."""
    if isinstance(instances, torch.Tensor | np.ndarray):
        return len(instances)
    told = getattr(instances, "num_instances", None)
    return sum(len(batch) for batch in instances) if told is None else int(told)


def _too_many(num_samples: int, num_instances: int) -> StatisticsInvalid:
    return StatisticsInvalid(f"--samples is {num_samples}: the training set has {num_instances} instances; drop it")


@dataclass(frozen=True)
class FirstOf:
    """The first batches of a stream, as many as hold `num_samples` instances.

    Raises:
        StatisticsInvalid: the stream has fewer.
    """

    stream: Stream
    num_samples: int

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return islice(iter(self.stream), len(self))

    @property
    def num_instances(self) -> int:
        """How many they are: `num_samples`, and what fills the last batch."""
        return sum(self._sizes)

    @cached_property
    def _sizes(self) -> list[int]:
        sizes: list[int] = []
        for batch in self.stream:
            sizes.append(len(batch))
            if sum(sizes) >= self.num_samples:
                return sizes
        raise _too_many(self.num_samples, sum(sizes))
