"""Precise statistics: one pass in which every BatchNorm normalises with its batch, as it did in training, all pooled.

"PreciseBN" (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3): the weights stand still, so the averages
do not lag behind them, and layers see what they saw in training: inputs behind *batch*-normalised layers. Pooled by the
number of values (their equation for the population variance, here by merging), not as the plain mean of variances.

Unlike exact statistics these depend on the size of the batches and on what meets in one; behind the first layer they
are consistent with training, not with the deployed network. Dropout is off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from model_export.errors import NetworkInvalid, StatisticsInvalid
from model_export.frozen_batchnorm import Frozen
from model_export.inference_copy import inference_copy
from model_export.statistics.batches import Batches, Instances, Stream
from model_export.statistics.exact import Statistics
from model_export.statistics.flow import Hear
from model_export.statistics.holding import held_statistics
from model_export.statistics.layers import BatchNorm, listening, named_batchnorms
from model_export.statistics.measurement import measure


def precise_statistics(
    network: nn.Module,
    instances: Instances,
    *,
    batch_size: int,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> Statistics:
    """Measure every BatchNorm that `network` comes to, behind batch-normalised layers, over `instances` (N, …).

    Args:
        network: as trained, in any mode; it is left as it is.
        instances: the training set, or a stream of it, which is taken in its own order.
        batch_size: that of the training; a last batch of one, which has no variance, is left out.
        device: where to run; None: where the network is.
        seed: of the order of instances: sorted by class, a batch would be no sample of the training set.

    Returns:
        The statistics by qualified name, in the order in which the network first applies its BatchNorms.

    Raises:
        StatisticsInvalid: a batch has no variance, or a BatchNorm keeps no statistics; names it.
        NetworkInvalid: a BatchNorm is frozen.
    """
    learning = inference_copy(network, device=device)
    for name, batchnorm in named_batchnorms(learning).items():
        _normalise_with_batches(name, batchnorm)
    batches = Batches(_shuffled(instances, batch_size, seed), batch_size, learning)
    return measure(batches, lambda _, batch, hear: _run(learning, batch, hear))


def _normalise_with_batches(name: str, batchnorm: BatchNorm) -> None:
    if isinstance(batchnorm, Frozen):
        raise NetworkInvalid(f"BatchNorm {name!r} is frozen and has no use for batches: thaw() the network first")
    held_statistics(name, batchnorm)
    if isinstance(batchnorm, nn.SyncBatchNorm):
        batchnorm.__class__ = _OfOneProcess  # type: ignore[assignment]  # each process normalises its own batches
    batchnorm.train()


class _OfOneProcess(_BatchNorm):
    """What SyncBatchNorm is without the others: for inputs of any number of axes."""

    def _check_input_dim(self, input: torch.Tensor) -> None:  # noqa: A002 - torch's name for it
        del input


def _shuffled(instances: Instances, batch_size: int, seed: int) -> Instances:
    if not isinstance(instances, torch.Tensor | np.ndarray):
        return _WithoutLoneInstance(instances)
    order = np.random.default_rng(seed).permutation(len(instances))
    if len(order) > 1 == len(order) % batch_size:
        order = order[:-1]
    return instances[torch.from_numpy(order)] if isinstance(instances, torch.Tensor) else instances[order]


@dataclass(frozen=True)
class _WithoutLoneInstance:
    """A stream without its last batch, if that is a single instance behind others."""

    stream: Stream

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[torch.Tensor]:
        before: torch.Tensor | None = None
        for batch in self.stream:
            if before is not None:
                yield before
            before = batch
        if before is not None and (len(before) > 1 or len(self.stream) == 1):
            yield before


def _run(learning: nn.Module, batch: torch.Tensor, hear: Hear) -> None:
    with listening(learning, hear):
        try:
            learning(batch)
        except ValueError as err:
            if "more than 1 value per channel" not in str(err):
                raise
            raise StatisticsInvalid(
                f"precise statistics normalise with the batch, and one of {len(batch)} has no variance: {err}. Use "
                "batches of two at least, or exact statistics, which need none"
            ) from err
