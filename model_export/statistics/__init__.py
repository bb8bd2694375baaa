"""Statistics: what a BatchNorm normalises with at inference, as trained or measured over the whole training set.

moving_average   `ema`: the running averages that training left behind
exact            `exact`: what each BatchNorm really sees in the deployed network, measured front to back
precise          `precise`: what it saw behind batch-normalised layers, in one pass
description      how well any of them fits a training set
conventions      what other frameworks mean by the same numbers

`exact` is made of waves (what can be measured together), a route (the network in pieces, or whole), and measurement
(one pass, over all processes), of values that merge.
"""

from __future__ import annotations

from model_export.statistics.batches import BATCH_SIZE, Batches, Instances, Stream
from model_export.statistics.description import describe_statistics
from model_export.statistics.exact import CACHE_BYTES, Progress, Tell, estimate_statistics
from model_export.statistics.holding import held_statistics, hold_all
from model_export.statistics.layers import applied_batchnorms, named_batchnorms
from model_export.statistics.moving_average import initial_weight, moving_average_statistics
from model_export.statistics.precise import precise_statistics
from model_export.statistics.processes import current_processes
from model_export.statistics.sampling import count_instances, sample
from model_export.statistics.values import FrozenStatistics, merge

__all__ = [
    "BATCH_SIZE",
    "CACHE_BYTES",
    "Batches",
    "FrozenStatistics",
    "Instances",
    "Progress",
    "Stream",
    "Tell",
    "applied_batchnorms",
    "count_instances",
    "current_processes",
    "describe_statistics",
    "estimate_statistics",
    "held_statistics",
    "hold_all",
    "initial_weight",
    "merge",
    "moving_average_statistics",
    "named_batchnorms",
    "precise_statistics",
    "sample",
]
