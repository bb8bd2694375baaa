"""The first layer of networks that do not begin with a BatchNorm, so that these too take the raw values of clients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_export.errors import NetworkInvalid
from model_export.statistics.values import block_statistics, merge

Moments = tuple[NDArray[np.float64], NDArray[np.float64]]


class Standardise(nn.Module):
    """(x − mean) / std for each feature of [N, F], or channel of [N, C, …]: fixed numbers, set by `fit_standardise`."""

    mean: Tensor
    std: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise `x`; the result has its shape."""
        shape = (1, -1, *(1,) * (x.ndim - 2))
        return (x - self.mean.view(shape)) / self.std.view(shape)


def fit_standardise(network: nn.Module, instances: NDArray[np.float32] | Iterable[Tensor]) -> None:
    """Set the `Standardise` layer of `network`, if it has one, to the statistics of `instances`, in place.

    These are [N, *shape], or a stream of batches [B, *shape], which takes one pass for each such layer. Computed in
    float64, with the biased variance; a feature that never changes gets std 1. A network of one's own may use the layer
    too, as the first one.

    Raises:
        NetworkInvalid: its layer has neither as many features as an instance has values nor as many as it has channels.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, Standardise):
            mean, std = _measure(instances, layer, name)
            layer.mean.copy_(torch.from_numpy(mean))
            layer.std.copy_(torch.from_numpy(np.where(std > 0, std, 1.0)))


def _measure(instances: NDArray[np.float32] | Iterable[Tensor], layer: Standardise, name: str) -> Moments:
    """Mean and standard deviation of each feature, shape (num_features,)."""
    if isinstance(instances, np.ndarray):
        values = _by_feature(instances, layer, name)
        return values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    blocks = (block_statistics(torch.from_numpy(_by_feature(batch.numpy(), layer, name))) for batch in instances)
    whole = reduce(merge, blocks)
    return whole.mean, np.sqrt(whole.var)


def _by_feature(instances: NDArray[np.float32], layer: Standardise, name: str) -> NDArray[np.float32]:
    """`instances` as [values, num_features]."""
    shape = instances.shape[1:]
    if layer.num_features == math.prod(shape):
        return instances.reshape(len(instances), -1)
    if layer.num_features == shape[0]:
        return np.moveaxis(instances, 1, -1).reshape(-1, shape[0])
    raise NetworkInvalid(
        f"{name}: Standardise({layer.num_features}) does not fit instances of shape {shape}: as the first layer it "
        f"takes {shape[0]} (channels), or after a Flatten {math.prod(shape)}"
    )
