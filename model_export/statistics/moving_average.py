"""Statistics as trained: the moving averages that each BatchNorm kept while it learned.

With every training batch PyTorch updates (`momentum` m is 0.1 unless said otherwise; None means the plain average)

    running_mean ← (1 − m)·running_mean + m·batch_mean
    running_var  ← (1 − m)·running_var  + m·batch_var·n/(n − 1)

(Ioffe & Szegedy 2015, algorithm 2). It normalises with the biased variance of the batch and stores the unbiased one,
as above; what is stored is what its inference mode uses, so that is what is kept here.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from model_export.errors import StatisticsInvalid
from model_export.frozen_batchnorm import Frozen
from model_export.statistics.holding import check_usable, held_statistics
from model_export.statistics.layers import BatchNorm, named_batchnorms
from model_export.statistics.values import FrozenStatistics


def moving_average_statistics(network: nn.Module, *, unreached: Collection[str] = ()) -> dict[str, FrozenStatistics]:
    """Read the moving averages of every BatchNorm in `network`, by qualified name, exactly as they are stored.

    Those named in `unreached`, which forward never comes to, are left out.

    Raises:
        StatisticsInvalid: a BatchNorm keeps no averages, was never trained, or its averages are unusable.
    """
    batchnorms = named_batchnorms(network)
    return {name: _moving_average(name, batchnorm) for name, batchnorm in batchnorms.items() if name not in unreached}


def initial_weight(batchnorm: BatchNorm) -> float | None:
    """The share that the initial mean 0 and variance 1 still have in the averages of `batchnorm`: (1 − m)^steps.

    0 where the plain average is kept (momentum None), which overwrites them in its first step. None where no steps were
    counted, as in checkpoints of old or converted ones: then it is not known.
    """
    num_steps, momentum = int(batchnorm.num_batches_tracked or 0), batchnorm.momentum
    if num_steps == 0:
        return None
    return 0.0 if momentum is None else float((1 - momentum) ** num_steps)


def _moving_average(name: str, batchnorm: BatchNorm) -> FrozenStatistics:
    if isinstance(batchnorm, Frozen):
        raise StatisticsInvalid(
            f"BatchNorm {name!r} is frozen, so what it holds need not be a moving average: read the averages of the "
            "network as trained, before freeze()"
        )
    statistics = held_statistics(name, batchnorm)
    check_usable(name, batchnorm, statistics)
    _check_trained(name, statistics)
    return statistics


def _check_trained(name: str, statistics: FrozenStatistics) -> None:
    """`num_batches_tracked` does not decide: checkpoints of old, or converted ones, have averages and a count of 0."""
    if (statistics.mean == 0).all() and (statistics.var == 1).all():
        raise StatisticsInvalid(
            f"BatchNorm {name!r} still has the mean 0 and variance 1 it was built with: no training batch ever went "
            "through it. Train the network, or take the layer out if forward does not use it"
        )
