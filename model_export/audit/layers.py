"""One BatchNorm under audit: its moving average against what it really sees, and its channels one by one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model_export.audit.values import AgainstExact, LayerAudit, Residual
from model_export.measuring import Method, Statistics, check_consistent
from model_export.statistics import (
    FrozenStatistics,
    Instances,
    describe_statistics,
    initial_weight,
    named_batchnorms,
)
from model_export.statistics.layers import BatchNorm
from service.bundle import LayerStatistics

AMPLIFYING = 1e3
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)

Channels = NDArray[np.float64]


def audit_layers(
    network: nn.Module, statistics: Mapping[Method, Statistics | str], exact: Statistics, calibration: Instances
) -> tuple[LayerAudit, ...]:
    """Audit every BatchNorm that `exact` has statistics of, in its order."""
    described = {
        method: {layer.batchnorm: layer for layer in describe_statistics(network, values, calibration)}
        for method, values in statistics.items()
        if not isinstance(values, str)
    }
    check_consistent(network, exact, described["exact"].values())
    averages = statistics.get("ema", "")
    batchnorms = named_batchnorms(network)
    return tuple(
        _audit_layer(
            batchnorms[name],
            measured,
            None if isinstance(averages, str) else averages[name],
            {method: layers[name] for method, layers in described.items()},
        )
        for name, measured in exact.items()
    )


def _audit_layer(
    batchnorm: BatchNorm,
    exact: FrozenStatistics,
    average: FrozenStatistics | None,
    described: Mapping[Method, LayerStatistics],
) -> LayerAudit:
    layer = described["exact"]
    gain = _gain(batchnorm, exact.var, layer.eps)
    dead = (gain == 0) | np.isin(np.arange(len(gain)), layer.constant_channels)
    against = None if average is None else _compare(average, exact, layer.eps, dead)
    return LayerAudit(
        batchnorm=layer.batchnorm,
        num_channels=layer.num_channels,
        eps=layer.eps,
        momentum=batchnorm.momentum,
        num_steps=int(batchnorm.num_batches_tracked or 0),
        initial_weight=initial_weight(batchnorm),
        against_exact=against,
        residuals={method: _residual(found) for method, found in described.items()},
        smallest_var=0.0 if dead.all() else float(exact.var[~dead].min()),
        max_gain=float(gain.max()),
        dead_channels=_where(dead),
        amplifying_channels=_where(gain > AMPLIFYING),
        float16_channels=_where((np.abs(exact.mean) > LARGEST_FLOAT16) | (exact.var > LARGEST_FLOAT16)),
    )


def _compare(
    average: FrozenStatistics, exact: FrozenStatistics, eps: float, dead: NDArray[np.bool_]
) -> AgainstExact | None:
    """The worst of the living channels; eps is in every σ, for it is in every division."""
    living = np.flatnonzero(~dead)
    if not len(living):
        return None
    shift = (np.abs(average.mean - exact.mean) / np.sqrt(exact.var + eps))[living]
    ratio = np.sqrt((average.var + eps) / (exact.var + eps))[living]
    furthest = int(np.abs(np.log(ratio)).argmax())
    return AgainstExact(
        mean_shift=float(shift.max()),
        mean_shift_channel=int(living[shift.argmax()]),
        std_ratio=float(ratio[furthest]),
        std_ratio_channel=int(living[furthest]),
        median_std_ratio=float(np.median(ratio)),
    )


def _gain(batchnorm: BatchNorm, var: Channels, eps: float) -> Channels:
    weight = batchnorm.weight
    size = np.abs(weight.detach().to("cpu", torch.float64).numpy()) if isinstance(weight, torch.Tensor) else 1.0
    return size / np.sqrt(var + eps)


def _residual(layer: LayerStatistics) -> Residual:
    return Residual(mean=layer.residual_mean or 0.0, variance=layer.residual_variance or 0.0)


def _where(condition: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(condition).tolist())
