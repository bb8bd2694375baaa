"""Freezing: fixing the statistics with which the BatchNorms of a network normalise, once training is done with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from model_export.errors import NetworkInvalid
from model_export.frozen_batchnorm import Frozen, freeze_layer, thaw_layer
from model_export.inference_copy import inference_copy
from model_export.statistics import FrozenStatistics, hold_all, named_batchnorms


def freeze(
    network: nn.Module, statistics: Mapping[str, FrozenStatistics], *, unreached: Collection[str] = ()
) -> nn.Module:
    """Copy `network` into inference mode, each of its BatchNorms holding its `statistics`, by qualified name, for good.

    Frozen means: every BatchNorm y = weight·(x − mean)/√(var + eps) + bias has a fixed mean and variance, so an answer
    depends on its own instance alone. It stays so through `.train()`, which switches Dropout on again: each BatchNorm
    of torch's has become a `FrozenBatchNorm`, which has no update path; one of another class stays in inference mode.
    Gradients still reach weight and bias.

    The statistics are rounded once, to the dtype of each BatchNorm's buffers. `network` is left as it is. Those named
    in `unreached`, which forward never comes to, keep what they hold.

    Raises:
        StatisticsInvalid: the statistics are not one for each BatchNorm, or do not fit, or are unusable; names it.
        NetworkInvalid: something in the network can not be copied.
    """
    frozen = inference_copy(network)
    hold_all(frozen, statistics, unreached=unreached)
    for batchnorm in named_batchnorms(frozen).values():
        if not isinstance(batchnorm, Frozen):
            freeze_layer(batchnorm)
    return frozen


def thaw(frozen: nn.Module) -> nn.Module:
    """Copy `frozen` into a network whose BatchNorms learn again: the classes that they were, from what they hold.

    The copy is in training mode, as a new network is: its running averages go on from the frozen statistics.

    Raises:
        NetworkInvalid: there is no frozen BatchNorm in it, or it can not be copied.
    """
    thawed = inference_copy(frozen)
    layers = [layer for layer in thawed.modules() if isinstance(layer, Frozen)]
    if not layers:
        raise NetworkInvalid("there is no frozen BatchNorm in this network: expected what freeze() returns")
    for layer in layers:
        thaw_layer(layer)
    return thawed.train()
