"""Between a table's rows, the network's input and the JSON that a client posts: one place knows how they correspond.

A numeric feature is one value. A categorical one is `len(categories)` values, 1 for its category and 0 elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model_export.data.float32 import as_instances
from model_export.errors import DataInvalid
from service.bundle import Feature

if TYPE_CHECKING:
    import pandas as pd


def encode_frame(frame: pd.DataFrame, features: tuple[Feature, ...]) -> NDArray[np.float32]:
    """The rows of `frame` as the network's input: float32 [N, sum of the features' widths], in the features' order.

    Raises:
        DataInvalid: a column is not there, holds an unknown category, or values that float32 can not hold.
    """
    missing = [feature.name for feature in features if feature.name not in frame.columns]
    if missing:
        raise DataInvalid(f"the table lacks the columns {', '.join(missing)}: expected those it was trained with")
    return np.concatenate([_encode(frame[feature.name], feature) for feature in features], axis=1)


def _encode(column: pd.Series[Any], feature: Feature) -> NDArray[np.float32]:
    """One column, float32 [N, feature.width]."""
    if feature.categories:
        return _one_hot(column, feature)
    exact = {"i": np.int64, "u": np.uint64}.get(column.dtype.kind, np.float64)
    return as_instances(column.to_numpy(dtype=exact)[:, None], where=f"column {feature.name!r}")


def _one_hot(column: pd.Series[Any], feature: Feature) -> NDArray[np.float32]:
    import pandas as pd

    words = column.astype(str)
    codes = pd.Index(feature.categories).get_indexer(pd.Index(words))
    if (codes < 0).any():
        unknown = words[codes < 0].iloc[0]
        known = ", ".join(feature.categories)
        raise DataInvalid(f"column {feature.name!r}: {unknown!r} is not one of its categories: {known}")
    one_hot: NDArray[np.float32] = np.eye(feature.width, dtype=np.float32)[codes]
    return one_hot


def instance_as_json(instance: NDArray[np.float32], features: tuple[Feature, ...] = ()) -> list[float | str]:
    """One instance, float32 [*shape], as a client posts it: the raw values in row-major order, or the row's features.

    Numbers are the shortest decimals that read back to the same float32; a category is its word.
    """
    if not features:
        return [_shortest(value) for value in instance.ravel()]
    ends = np.cumsum([feature.width for feature in features])
    parts = np.split(instance, ends[:-1])
    return [_decode(part, feature) for part, feature in zip(parts, features, strict=True)]


def _decode(values: NDArray[np.float32], feature: Feature) -> float | str:
    return feature.categories[int(values.argmax())] if feature.categories else _shortest(values[0])


def _shortest(value: np.float32) -> float:
    """0.1 for float32's 0.1, which is 0.10000000149 in double: nobody would post that."""
    short = float(str(value))
    return short if np.float32(short) == value else float(value)
