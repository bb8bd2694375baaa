"""A batch as a user's loader gives it, checked and brought into the form that all batches have here.

It is (instances, labels): anything that torch can take as numbers, of any dtype, and whole numbers. What float32 can
not hold is refused as it is everywhere else, but in torch, for this is done in every training step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model_export.data.float32 import MAX_EXACT_INTEGER
from model_export.errors import DataInvalid

LabelledBatch = tuple[Tensor, Tensor]


def check_batch(batch: Any, *, where: str, num_labels: int | None = None) -> LabelledBatch:
    """`batch` as (instances float32 [B, *shape], labels int64 [B]).

    Args:
        batch: what the loader gave.
        where: the loader's name, for errors.
        num_labels: how many classes there are, if that is known yet.

    Raises:
        DataInvalid: it is no such pair, or holds what float32 can not, or a label that is no class.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise DataInvalid(
            f"{where}: expected batches (instances, labels), found {type(batch).__name__}{size}: let the dataset give "
            "pairs, or say a collate_fn that makes them"
        )
    instances = as_float32(batch[0], where=where)
    return instances, _as_labels(batch[1], len(instances), where, num_labels)


def as_float32(values: Any, *, where: str) -> Tensor:
    """`values` as float32 [B, *shape], on the CPU; refused where float32 could not hold them.

    Raises:
        DataInvalid: they are not numbers, not finite, beyond float32's range, or whole numbers that it would round.
    """
    tensor = _as_tensor(values, where=f"{where}: instances")
    if tensor.ndim < 2 or tensor.is_complex():
        raise DataInvalid(
            f"{where}: expected instances of shape (B, …) with two axes at least, found {tensor.dtype} "
            f"{tuple(tensor.shape)}"
        )
    if not tensor.is_floating_point():
        _check_whole(tensor, where)
        return tensor.to(torch.float32)
    instances = tensor.to(torch.float32)
    if not torch.isfinite(instances.sum()):  # one pass; a sum may overflow, so what it suspects is looked at
        num_unusable = int((~torch.isfinite(instances)).sum())
        if num_unusable:
            raise DataInvalid(f"{where}: {num_unusable} values are missing, infinite or beyond float32's range")
    return instances


def _check_whole(tensor: Tensor, where: str) -> None:
    if tensor.dtype in {torch.int32, torch.int64} and tensor.numel():
        low, high = (int(value) for value in tensor.aminmax())
        if max(high, -low) > MAX_EXACT_INTEGER:
            raise DataInvalid(
                f"{where}: holds whole numbers beyond ±{MAX_EXACT_INTEGER:,}, which float32 would round to a "
                "neighbour: scale them, or give them as floating point to accept the rounding"
            )


def _as_labels(values: Any, size: int, where: str, num_labels: int | None) -> Tensor:
    labels = _as_tensor(values, where=f"{where}: labels")
    if labels.is_floating_point() or labels.is_complex() or labels.shape != (size,):
        raise DataInvalid(
            f"{where}: expected labels that are whole numbers, of shape ({size},), found {labels.dtype} "
            f"{tuple(labels.shape)}"
        )
    labels = labels.to(torch.int64)
    if size:
        low, high = (int(value) for value in labels.aminmax())
        if low < 0 or (num_labels is not None and high >= num_labels):
            known = f"from 0 to {num_labels - 1}" if num_labels else "from 0 on"
            raise DataInvalid(f"{where}: expected labels {known}, found {low if low < 0 else high}")
    return labels


def _as_tensor(values: Any, *, where: str) -> Tensor:
    if not isinstance(values, Tensor | np.ndarray):
        raise DataInvalid(f"{where}: expected a tensor or an array, found {type(values).__name__}")
    try:
        return torch.as_tensor(values).detach().cpu()
    except TypeError as err:
        raise DataInvalid(f"{where}: expected numbers, found dtype {values.dtype}") from err
