"""How far what is served may be from what was trained, in each precision: the room that its rounding needs, no more.

Scores lie between 0 and 1, and their tolerance is absolute; logits have no scale of their own, and theirs is relative
to the largest of them. Float32's stand where they are used, in `verify.py`. Those below were set on digits and
Fashion-MNIST (mlp and convnet): fp16 and bf16 have six times what was measured there, for deeper networks.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.bundle import Precision


@dataclass(frozen=True)
class Tolerances:
    """The largest differences that are allowed: of a score, and of a logit in shares of the largest."""

    scores: float
    logits: float


TOLERANCES: dict[Precision, Tolerances] = {
    # A rounding is 2⁻¹¹ = 5e-4 of a value. Measured, with every value rounded: scores 3.4e-3, logits 0.7e-3.
    "fp16": Tolerances(scores=0.02, logits=4e-3),
    # A rounding is 2⁻⁸ = 4e-3, eight times fp16's. Measured, with every value rounded: scores 1e-2, logits 2.5e-3.
    "bf16": Tolerances(scores=0.06, logits=1.5e-2),
    # 7 bits for a weight, 8 for an activation, and what is beyond the calibrated range is cut off. Measured: scores
    # 0.09 to 0.45 on the one instance of 10,000 that is worst (three draws of the calibration), 0.001 on average,
    # logits 0.15. A score that moves by more than a half has turned a clear answer into another one. What int8 costs is
    # told by the accuracy, not by the worst score.
    "int8": Tolerances(scores=0.5, logits=0.35),
}
