"""What a case of the bank is drawn from: seeded numbers, a dtype, and whether all its sizes coincide."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ml_dtypes import bfloat16
from numpy.typing import NDArray

DtypeName = Literal["float64", "float32", "float16", "bfloat16"]
SIZE_WHERE_ALL_ARE_EQUAL = 4
_DTYPES: dict[DtypeName, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": bfloat16,
}


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One variant of a case. Every number is representable in float32, so that float64 and float32 hold the same.

    `square`: all sizes but the batch are equal, as the traps about axes need it; else sizes differ.
    """

    rng: np.random.Generator
    dtype: DtypeName
    square: bool

    def size(self, size: int) -> int:
        """`size`, or the one size of all where they coincide."""
        return SIZE_WHERE_ALL_ARE_EQUAL if self.square else size

    def rounded(self, values: Any) -> NDArray[Any]:
        """`values` in the dtype of this variant."""
        return np.asarray(np.asarray(values, np.float32).astype(numpy_dtype(self.dtype)))


def make_draw(name: str, *, square: bool, dtype: DtypeName) -> Draw:
    """The same numbers for the same name and `square`, whatever the dtype."""
    return Draw(rng=np.random.default_rng([zlib.crc32(name.encode()), square]), dtype=dtype, square=square)


def numpy_dtype(name: DtypeName) -> Any:
    """The dtype as NumPy knows it; bfloat16 is the one of ml_dtypes."""
    return _DTYPES[name]
