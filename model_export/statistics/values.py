"""Mean and variance as a value that merges: the same numbers, however the data was cut into blocks.

For two blocks A and B of n_A and n_B values, with δ = mean_B − mean_A and n = n_A + n_B,

    mean = mean_A + δ · n_B/n
    var  = (n_A·var_A + n_B·var_B)/n + δ² · n_A·n_B/n²

(Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances", divided by n).
Unlike E[x²] − E[x]² it subtracts no two large numbers: the variance stays right, and not negative, when the mean is
large. Averaging the variances of batches, as is common, leaves out the last term, which is the spread between batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model_export.errors import StatisticsInvalid

Channels = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class FrozenStatistics:
    """What one BatchNorm normalises with: `mean` and `var`, float64, one value a channel, shape (C,).

    `num_values` says over how many values of each channel they were taken; then `var` is biased (divided by that
    number). It is 0 for moving averages, which keep no count and are stored as trained.
    """

    mean: Channels
    var: Channels
    num_values: int


def block_statistics(block: torch.Tensor) -> FrozenStatistics:
    """Measure one block of activations, shape (N, C, …): every axis but the channel axis counts as data. Two passes."""
    values = block.detach().to(torch.float64, copy=True)
    axes = [axis for axis in range(values.ndim) if axis != 1]  # as they lie: a transposed copy is 50 times slower
    mean = values.mean(dim=axes, keepdim=True)
    var = values.sub_(mean).square_().mean(dim=axes)
    return FrozenStatistics(mean=mean.flatten().cpu().numpy(), var=var.cpu().numpy(), num_values=_count(values))


def _count(values: torch.Tensor) -> int:
    """How many values each channel has."""
    return values.numel() // values.shape[1]


def merge(first: FrozenStatistics, second: FrozenStatistics) -> FrozenStatistics:
    """Combine the statistics of two blocks into those of both together.

    Raises:
        StatisticsInvalid: one of them carries no count, as moving averages do not.
    """
    if not (first.num_values and second.num_values):
        raise StatisticsInvalid("statistics without a count of values, such as moving averages, can not be merged")
    total = first.num_values + second.num_values
    weight = second.num_values / total
    delta = second.mean - first.mean
    return FrozenStatistics(
        mean=first.mean + delta * weight,
        var=(1 - weight) * first.var + weight * second.var + delta**2 * (weight * (1 - weight)),
        num_values=total,
    )
