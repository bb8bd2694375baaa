"""How far numbers are from one another in units in the last place: what another order of adding leaves of a sum.

The bits of a float, its sign aside, count up from zero in steps of one unit. So two numbers of one sign are as many
units apart as their bits differ, and two of different signs as many as both are from zero, where +0 and −0 are one
place (Goldberg 1991, section 1.2, for the unit).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
UNSIGNED: dict[int, Any] = {2: np.uint16, 4: np.uint32, 8: np.uint64}  # by the number of bytes


def same_bits(some: Array, others: Array) -> bool:
    """Say if two arrays are the same, bit for bit; NaN is one value here, whatever its bits."""
    return some.tobytes() == others.tobytes() or _one_nan(some).tobytes() == _one_nan(others).tobytes()


def largest_distance(some: Sequence[Array], others: Sequence[Array]) -> float:
    """Give the largest distance between two sequences of arrays, in units in the last place of each array's dtype.

    0 says nothing about the sign of a zero. Whole numbers that differ, and a number that is finite in one place
    only, are infinitely far apart: there are no units to count.
    """
    return max((_largest(a, b) for a, b in zip(some, others, strict=True)), default=0)


def distances(some: Array, others: Array) -> Array:
    """Count the units in the last place between finite floats of one dtype, element by element."""
    unsigned = UNSIGNED[some.itemsize]
    sign = unsigned(1) << unsigned(8 * some.itemsize - 1)
    a, b = some.view(unsigned), others.view(unsigned)
    from_zero_a, from_zero_b = a & ~sign, b & ~sign
    apart = np.maximum(from_zero_a, from_zero_b) - np.minimum(from_zero_a, from_zero_b)
    # The sum fits: neither is more than the bits of infinity, which is less than half of what the dtype holds.
    same_sign = (a ^ b) & sign == 0
    counted: Array = np.where(same_sign, apart, from_zero_a + from_zero_b)
    return counted


def _largest(some: Array, others: Array) -> float:
    if same_bits(some, others):
        return 0
    if not np.issubdtype(some.dtype, np.floating):
        return math.inf
    finite = np.isfinite(some)
    if not np.array_equal(finite, np.isfinite(others)) or not same_bits(some[~finite], others[~finite]):
        return math.inf
    return int(distances(some[finite], others[finite]).max(initial=0))


def _one_nan(values: Array) -> Array:
    if not np.issubdtype(values.dtype, np.floating):
        return values
    return np.where(np.isnan(values), values.dtype.type(np.nan), values)
