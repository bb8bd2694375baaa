"""The bank: small ONNX graphs around BatchNormalization, one for each pattern that folds and one for each trap.

Every case says what must become of each BatchNorm. Every case comes in two variants: with all sizes different, and
with all sizes equal, where a tool that guesses axes from sizes guesses wrong.
"""

from __future__ import annotations

from benchmarks.bank import (
    affine,
    backward,
    bodies,
    convolutions,
    forward,
    forward_passing,
    merging,
    parallel,
    passing,
    precision,
    sharing,
    tokens,
    traps_axes,
    traps_curves,
    traps_padding,
    traps_readers,
    traps_values,
    untouched,
)
from benchmarks.bank.case import Case, cases_of

FAMILIES = (
    backward,
    convolutions,
    sharing,
    tokens,
    passing,
    merging,
    affine,
    forward,
    forward_passing,
    parallel,
    bodies,
    precision,
    traps_axes,
    traps_padding,
    traps_curves,
    traps_readers,
    traps_values,
    untouched,
)
BANK: tuple[Case, ...] = tuple(case for family in FAMILIES for case in cases_of(family))

__all__ = ["BANK", "FAMILIES", "Case"]
