"""Exact statistics: what each BatchNorm sees in the deployed network, over the whole training set.

Ioffe & Szegedy 2015, algorithm 2, end with the population mean and variance of each layer's input. Those inputs depend
on the layers before, so the order matters: the first BatchNorm is measured and frozen, the second is measured behind
it, and so on to the last. Everything runs in inference mode, Dropout included. "PreciseBN" (Wu & Johnson 2021,
"Rethinking 'Batch' in BatchNorm", section 3) measures all in one pass behind *batch*-normalised layers; its result
depends on the size and the order of the batches, this one on neither. Variances are biased, sums are in float64.

The price is one partial pass over the data for each BatchNorm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from model_export.errors import StatisticsInvalid
from model_export.inference_copy import inference_copy
from model_export.statistics.batches import BATCH_SIZE, Batches, Instances
from model_export.statistics.holding import held_statistics, hold_statistics
from model_export.statistics.layers import applied_batchnorms, named_batchnorms
from model_export.statistics.measurement import measure_inputs
from model_export.statistics.values import FrozenStatistics

Progress = Callable[[int, int], None]


def estimate_statistics(
    network: nn.Module,
    instances: Instances,
    *,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> dict[str, FrozenStatistics]:
    """Measure every BatchNorm of `network`, front to back, over `instances`, shape (N, …).

    Args:
        network: as trained, in any mode; it is left as it is.
        instances: the whole training set, as the network takes it.
        batch_size: how many at a time; but for the rounding of the activations it makes no difference.
        device: where to run; None: where the network is.
        progress: told (batches done, batches in all) after every batch.

    Returns:
        The statistics by qualified name, in the order in which the network applies its BatchNorms.

    Raises:
        StatisticsInvalid: a BatchNorm has no statistics of its own to be measured; names it.
        NetworkInvalid: the network can not take the instances.
    """
    frozen = inference_copy(network, device=device)
    batches = Batches(instances, batch_size, frozen)
    batchnorms = named_batchnorms(frozen)
    order = _order(frozen, next(iter(batches)))
    statistics: dict[str, FrozenStatistics] = {}
    for done, name in enumerate(order):
        told = _telling(batches, progress, num_before=done * len(batches), total=len(order) * len(batches))
        statistics |= measure_inputs(frozen, [name], told)
        hold_statistics(name, batchnorms[name], statistics[name])
    return statistics


def _order(frozen: nn.Module, batch: torch.Tensor) -> tuple[str, ...]:
    """The order of execution, from a real forward pass: the order of definition proves nothing."""
    batchnorms = named_batchnorms(frozen)
    for name, batchnorm in batchnorms.items():
        held_statistics(name, batchnorm)
    applied = applied_batchnorms(frozen, batch)
    _check_applied_once(list(batchnorms), applied)
    return applied


def _check_applied_once(names: Sequence[str], applied: Sequence[str]) -> None:
    times = Counter(applied)
    for name in names:
        if not times[name]:
            raise StatisticsInvalid(
                f"BatchNorm {name!r} can not be measured: in inference mode, forward never reaches it. Take it out of "
                "the network, or freeze the moving averages instead"
            )
        if times[name] > 1:
            raise StatisticsInvalid(
                f"BatchNorm {name!r} is applied {times[name]} times in one forward pass: one mean and variance can not "
                "be exact for all. Give each application a BatchNorm of its own, or freeze the moving averages instead"
            )


def _telling(batches: Batches, progress: Progress | None, *, num_before: int, total: int) -> Iterator[torch.Tensor]:
    for done, batch in enumerate(batches, start=num_before + 1):
        yield batch
        if progress is not None:
            progress(done, total)
