"""Freezing: fixing the statistics with which the BatchNorms of a network normalise, once training is done with them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from model_export.inference_copy import inference_copy
from model_export.statistics import FrozenStatistics, hold_all


def freeze(network: nn.Module, statistics: Mapping[str, FrozenStatistics]) -> nn.Module:
    """Copy `network` into inference mode, each of its BatchNorms holding its `statistics`, by qualified name.

    Frozen means: every BatchNorm y = weight·(x − mean)/√(var + eps) + bias has a fixed mean and variance, so an answer
    depends on its own instance alone. It says nothing about gradients, and holds as long as the copy stays in inference
    mode: after `.train()` its BatchNorms would use, and move, the statistics of batches again.

    The statistics are rounded once, to the dtype of each BatchNorm's buffers. `network` is left as it is.

    Raises:
        StatisticsInvalid: the statistics are not one for each BatchNorm, or do not fit, or are unusable; names it.
        NetworkInvalid: something in the network can not be copied.
    """
    frozen = inference_copy(network)
    hold_all(frozen, statistics)
    return frozen
