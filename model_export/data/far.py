"""Columns whose values lie far from zero and close together: a latitude of 52.1 ± 0.01, a year, a timestamp.

A BatchNorm that stands first computes x·(γ/σ) + (β − μ·γ/σ): two numbers of the size of mean/σ that nearly cancel. In
float32, with its seven digits, a ratio of a thousand leaves four.
"""

from __future__ import annotations

import numpy as np

from model_export.data.splits import Splits

FAR = 1e3


def far_from_zero(splits: Splits) -> tuple[str, ...]:
    """The numeric columns whose |mean| in the training split is more than `FAR` standard deviations, by name."""
    ends = np.cumsum([feature.width for feature in splits.features])
    numeric = {feature.name: end - 1 for feature, end in zip(splits.features, ends, strict=True) if feature.width == 1}
    return tuple(name for name, place in numeric.items() if _ratio(splits.train.instances[:, place]) > FAR)


def _ratio(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """|mean| / std; 0 for values that never change, of which BatchNorm's eps takes care."""
    std = values.std(dtype=np.float64)
    return float(abs(values.mean(dtype=np.float64)) / std) if std > 0 else 0.0
