"""What each BatchNorm came to hold: γ and β as learned, μ and σ as frozen, and how far its moving average is from them.

The gap is measured in what the layer makes of it. Behind exact statistics a channel has mean 0 and spread 1; with the
moving averages μ' and σ'² in their place the same values have the mean (μ − μ')/√(σ'²+ε). `shift` is that distance in
units of the exact spread, (μ' − μ)/√(σ²+ε), and `ratio` is √(σ'²+ε)/√(σ²+ε). ε stands in both, as in the layer itself.
Channels that never varied in training are left out: whatever their average remembers, there is nothing to normalise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model_export.statistics import FrozenStatistics, named_batchnorms
from model_export.statistics.description import CONSTANT_SHARE_OF_EPS
from model_export.statistics.values import Channels


@dataclass(frozen=True, kw_only=True, eq=False)
class Gap:
    """From exact to moving average: `shift` is 0 and `ratio` is 1 where they agree.

    One value for each of the `channels`, which are those that varied in training.
    """

    channels: NDArray[np.int64]
    shift: Channels
    ratio: Channels

    @property
    def worst_channel(self) -> int:
        """The channel with the largest shift."""
        return int(self.channels[np.abs(self.shift).argmax()])

    @property
    def worst_shift(self) -> float:
        """The largest shift, without its sign."""
        return float(np.abs(self.shift).max())


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One BatchNorm: `weight` (γ), `bias` (β; both None without affine), `mean` (μ) and `std` (σ), float64 [C]."""

    name: str
    weight: Channels | None
    bias: Channels | None
    mean: Channels
    std: Channels
    gap: Gap | None

    @property
    def quantities(self) -> dict[str, Channels | None]:
        """All four, by the letters that the field has for them."""
        return {"γ": self.weight, "β": self.bias, "μ": self.mean, "σ": self.std}


def look_at_layers(
    network: nn.Module, exact: Mapping[str, FrozenStatistics], moving: Mapping[str, FrozenStatistics]
) -> tuple[Layer, ...]:
    """One `Layer` for each BatchNorm in `exact`, in its order; those that `moving` lacks have no gap."""
    batchnorms = named_batchnorms(network)
    return tuple(
        Layer(
            name=name,
            weight=_channels(batchnorms[name].weight),
            bias=_channels(batchnorms[name].bias),
            mean=held.mean,
            std=np.sqrt(held.var),
            gap=measure_gap(held, moving[name], eps=batchnorms[name].eps) if name in moving else None,
        )
        for name, held in exact.items()
    )


def measure_gap(exact: FrozenStatistics, moving: FrozenStatistics, *, eps: float) -> Gap | None:
    """Compare two statistics of the same BatchNorm; see the head of this module. None if no channel ever varied."""
    channels = np.flatnonzero(exact.var >= CONSTANT_SHARE_OF_EPS * eps)
    if not len(channels):
        return None
    spread = np.sqrt(exact.var + eps)
    shift, ratio = (moving.mean - exact.mean) / spread, np.sqrt(moving.var + eps) / spread
    return Gap(channels=channels, shift=shift[channels], ratio=ratio[channels])


def _channels(parameter: torch.Tensor | None) -> Channels | None:
    return None if parameter is None else parameter.detach().to("cpu", torch.float64, copy=True).numpy()
