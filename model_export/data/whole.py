"""The whole training set, in order, from a loader that shuffles it, drops its last batch or gives a process its share.

A training loader is made for steps; statistics want each training instance once. Where torch's own DataLoader reads a
dataset by index, another one is made over the same dataset:

    sampler RandomSampler, SequentialSampler or DistributedSampler     all of the dataset, in its order
    sampler SubsetRandomSampler                                        the subset, in ascending order
    any other sampler (WeightedRandomSampler, …), a batch sampler of the user's own, an iterable dataset, a loader of
    another type                                                       as it is: what it gives is the training set

The last is a decision: such a sampler says itself what an epoch holds. A batch that it drops is then not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import DistributedSampler, RandomSampler, SequentialSampler, SubsetRandomSampler

from model_export.data.reindex import has_usual_batches, reads_by_index, reindex


def whole_set(loader: Any) -> tuple[Any, int | None]:
    """A loader of each training instance once, and how many there are; None where only counting could tell."""
    order = _order(loader)
    return (loader, None) if order is None else (reindex(loader, order, drop_last=False), len(order))


def _order(loader: Any) -> Sequence[int] | None:
    """The indices of all training instances, or None if the loader alone knows what it gives."""
    if not reads_by_index(loader) or not has_usual_batches(loader):
        return None
    sampler = loader.sampler
    if type(sampler) is SubsetRandomSampler:
        return sorted(sampler.indices)
    if type(sampler) in {RandomSampler, SequentialSampler, DistributedSampler}:
        return range(len(loader.dataset))  # type: ignore[arg-type]  # it has a length: `reads_by_index`
    return None
