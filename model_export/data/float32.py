"""What float32 can hold: whatever a source gives becomes float32 here, or is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.errors import DataInvalid

MAX_EXACT_INTEGER = 2**24  # from here on float32 has not every whole number


def as_instances(values: NDArray[Any], *, where: str) -> NDArray[np.float32]:
    """`values` as float32 [N, …], C-contiguous; refused where float32 could not hold them.

    Raises:
        DataInvalid: they are not numbers, not finite, beyond float32's range, or whole numbers that it would round.
    """
    if values.dtype.kind not in "biuf":
        raise DataInvalid(f"{where}: expected numbers, found dtype {values.dtype}")
    if values.dtype.kind in "iu" and values.size and max(int(values.max()), -int(values.min())) > MAX_EXACT_INTEGER:
        raise DataInvalid(
            f"{where}: holds whole numbers beyond ±{MAX_EXACT_INTEGER:,}, which float32 would round to a neighbour. "
            "An identifier? Leave it out. A quantity? Scale it, or store it as floating point to accept the rounding"
        )
    _check_float32(values, where=where)
    return np.ascontiguousarray(values, dtype=np.float32)


def _check_float32(values: NDArray[Any], *, where: str) -> None:
    num_unusable = int(np.count_nonzero(~np.isfinite(values)))
    if num_unusable:
        raise DataInvalid(f"{where}: {num_unusable} values are missing or infinite: fill them in, or drop those rows")
    if values.size and np.abs(values.astype(np.float64)).max() > np.finfo(np.float32).max:
        raise DataInvalid(f"{where}: holds values beyond float32's range (±3.4e38): scale them")
