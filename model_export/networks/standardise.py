"""The first layer of networks that do not begin with a BatchNorm, so that these too take the raw values of clients."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_export.errors import NetworkInvalid


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


def fit_standardise(network: nn.Module, instances: NDArray[np.float32]) -> None:
    """Set the `Standardise` layer of `network`, if it has one, to the statistics of `instances` [N, *shape], in place.

    Computed in float64, with the biased variance; a feature that never changes gets std 1. A network of one's own may
    use the layer too, as the first one.

    Raises:
        NetworkInvalid: its layer has neither as many features as an instance has values nor as many as it has channels.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, Standardise):
            mean, std = _moments(_by_feature(instances, layer, name))
            layer.mean.copy_(torch.from_numpy(mean))
            layer.std.copy_(torch.from_numpy(std))


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


def _moments(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    return mean, np.where(std > 0, std, 1.0)
