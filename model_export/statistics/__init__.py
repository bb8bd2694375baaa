"""Statistics: what a BatchNorm normalises with at inference, either as trained or exact over the whole training set.

moving_average_statistics   the running averages that training left behind
estimate_statistics         the mean and variance of what each BatchNorm really sees in the deployed network
describe_statistics         how well either of them fits a training set
"""

from __future__ import annotations

from model_export.statistics.description import describe_statistics
from model_export.statistics.exact import estimate_statistics
from model_export.statistics.holding import held_statistics, hold_all
from model_export.statistics.layers import applied_batchnorms, named_batchnorms
from model_export.statistics.moving_average import moving_average_statistics
from model_export.statistics.values import FrozenStatistics, merge

__all__ = [
    "FrozenStatistics",
    "applied_batchnorms",
    "describe_statistics",
    "estimate_statistics",
    "held_statistics",
    "hold_all",
    "merge",
    "moving_average_statistics",
    "named_batchnorms",
]
