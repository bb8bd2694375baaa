"""The same DataLoader over other indices: dataset, batch size, collate function and workers stay as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

BATCH_SIZE = 256  # where the loader's own can not be told


def reads_by_index(loader: object) -> TypeGuard[DataLoader[Any]]:
    """Whether it is torch's own DataLoader, batching a dataset that has a length and is read by index."""
    return (
        type(loader) is DataLoader
        and not isinstance(loader.dataset, IterableDataset)
        and hasattr(loader.dataset, "__len__")
        and loader.batch_sampler is not None
    )


def has_usual_batches(loader: DataLoader[Any]) -> bool:
    """Whether its batches are so many indices of a sampler each; a batch sampler of the user's own may do anything."""
    return type(loader.batch_sampler) is BatchSampler


def reindex(loader: DataLoader[Any], indices: Sequence[int], *, drop_last: bool) -> DataLoader[Any]:
    """Instances at `indices`, in that order, in batches of the loader's size."""
    size = getattr(loader.batch_sampler, "batch_size", None) or BATCH_SIZE
    return DataLoader(loader.dataset, batch_size=size, sampler=indices, drop_last=drop_last, **_kept(loader))


def rebatch(loader: DataLoader[Any], batches: Sequence[list[int]]) -> DataLoader[Any]:
    """One batch of each of `batches`, which holds its indices."""
    return DataLoader(loader.dataset, batch_sampler=batches, **_kept(loader))


def _kept(loader: DataLoader[Any]) -> dict[str, Any]:
    return {
        "num_workers": loader.num_workers,
        "collate_fn": loader.collate_fn,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
        "prefetch_factor": loader.prefetch_factor if loader.num_workers else None,
        "pin_memory": loader.pin_memory,
        "generator": loader.generator,
    }
