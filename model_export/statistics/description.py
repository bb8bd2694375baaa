"""How well frozen statistics fit a training set: the numbers that the manifest keeps for each BatchNorm.

Behind frozen μ and σ², an input of mean m and biased variance v has, once normalised, the mean (m − μ)/√(σ²+ε) and the
variance v/(σ²+ε). Exact statistics leave 0 and σ²/(σ²+ε); moving averages are off by what they have forgotten.
μ and σ² are those the network holds, after rounding to its dtype; m and v are measured behind frozen layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from model_export.inference_copy import inference_copy
from model_export.statistics.batches import BATCH_SIZE, Batches, Instances
from model_export.statistics.holding import held_statistics, hold_all
from model_export.statistics.layers import BatchNorm, applied_batchnorms, named_batchnorms
from model_export.statistics.measurement import measure
from model_export.statistics.values import Channels, FrozenStatistics
from model_export.statistics.whole import run_until_heard
from service.bundle import LayerStatistics

# A channel whose variance is under this share of eps is constant, as far as this BatchNorm can tell: what is left of
# its variance once normalised, σ²/(σ²+ε), is under 1 % of what every other channel has.
CONSTANT_SHARE_OF_EPS = 0.01


def describe_statistics(
    network: nn.Module,
    statistics: Mapping[str, FrozenStatistics],
    instances: Instances | None,
    *,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str | None = None,
) -> tuple[LayerStatistics, ...]:
    """Describe the statistics of each BatchNorm of `network`; with `instances`, also how well they fit those.

    Residuals are None where there is nothing to measure: no instances, or a BatchNorm that forward never reaches.

    Raises:
        StatisticsInvalid: the statistics are not those of this network.
        NetworkInvalid: the network can not take the instances.
    """
    frozen = inference_copy(network, device=device)
    hold_all(frozen, statistics, unreached=named_batchnorms(frozen).keys() - statistics.keys())
    measured = {} if instances is None else measure_inputs(frozen, Batches(instances, batch_size, frozen))
    batchnorms = named_batchnorms(frozen)
    return tuple(
        _describe(name, batchnorms[name], statistics[name].num_values, measured.get(name)) for name in statistics
    )


def measure_inputs(frozen: nn.Module, batches: Batches) -> dict[str, FrozenStatistics]:
    """Measure what every BatchNorm of `frozen` is fed, each behind the others as they are, in one pass.

    Raises:
        StatisticsInvalid: an input is not finite.
        NetworkInvalid: the network can not take the instances.
    """
    times = Counter(applied_batchnorms(frozen, next(iter(batches))[:2]))
    return measure(batches, lambda _, batch, hear: run_until_heard(frozen, batch, times, hear)) if times else {}


def _describe(name: str, batchnorm: BatchNorm, num_values: int, measured: FrozenStatistics | None) -> LayerStatistics:
    held = held_statistics(name, batchnorm)
    residual_mean, residual_variance = (None, None) if measured is None else _residuals(held, measured, batchnorm.eps)
    return LayerStatistics(
        batchnorm=name,
        num_channels=batchnorm.num_features,
        num_values=num_values,
        eps=batchnorm.eps,
        max_gain=_max_gain(batchnorm, held.var),
        constant_channels=tuple(np.flatnonzero(held.var < CONSTANT_SHARE_OF_EPS * batchnorm.eps).tolist()),
        residual_mean=residual_mean,
        residual_variance=residual_variance,
    )


def _residuals(held: FrozenStatistics, measured: FrozenStatistics, eps: float) -> tuple[float, float]:
    mean = (measured.mean - held.mean) / np.sqrt(held.var + eps)
    variance = (measured.var - held.var) / (held.var + eps)
    return float(np.abs(mean).max()), float(np.abs(variance).max())


def _max_gain(batchnorm: BatchNorm, var: Channels) -> float:
    weight = np.ones(1) if batchnorm.weight is None else batchnorm.weight.detach().to("cpu", torch.float64).numpy()
    return float((np.abs(weight) / np.sqrt(var + batchnorm.eps)).max())
