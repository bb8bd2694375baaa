"""Lower precision: a folded float32 model becomes one that computes in fp16, bf16 or int8; its signature stays.

support       where a precision can be run at all
kept          what stays float32 in every precision: the layer that computes the logits, and all behind it
halves        fp16 and bf16: each value is rounded, casts stand at the edges
rehearsal     fp16 and bf16 as a device computes them that really rounds, for a CPU that does not
scaling       int8's first layer reads values of one size
integers      int8: static, per channel, by ONNX Runtime
calibration   the training instances that int8's ranges are taken from

Everything here takes the model after the fold and returns another one. Float32 is decided and verified before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from model_export.ir import ir
from model_export.precision.calibration import draw_calibration
from model_export.precision.halves import HALVES, narrow
from model_export.precision.integers import quantise
from model_export.precision.kept import find_kept, layers_of
from model_export.precision.rehearsal import rehearse
from model_export.precision.scaling import standardise
from model_export.precision.support import device_for
from service.bundle import Precision

__all__ = ["HALVES", "NOTE", "Lowered", "device_for", "draw_calibration", "lower", "rehearse"]

NOTE = "foldserve.precision"  # the entry of the model's metadata_props that names its precision


@dataclass(frozen=True, kw_only=True, eq=False)
class Lowered:
    """A model in a lower precision: the layers in it that stay float32, and the one that reads standardised values."""

    model: ir.Model
    float32_layers: tuple[str, ...]
    standardised: str = ""


def lower(model: ir.Model, precision: Precision, calibration: NDArray[np.float32]) -> Lowered:
    """Give `model`, which must be folded and float32, in another precision; it is left as it is.

    Args:
        model: one input, float32 (batch, *instance_shape).
        precision: "fp16", "bf16" or "int8".
        calibration: training instances, float32 (N, *instance_shape); what int8's ranges are taken from, and what
            fp16's range is checked with.

    Raises:
        PrecisionUnavailable: there is no layer to lower, or the model's values are beyond the precision's range.
    """
    typed = _with_types(model)
    kept = find_kept(typed)
    lowered, standardised = _lower(typed, precision, calibration, kept)
    lowered.metadata_props[NOTE] = precision
    names = tuple(node.name or "" for node in layers_of(typed) if node in kept)
    return Lowered(model=lowered, float32_layers=names, standardised=standardised)


def _with_types(model: ir.Model) -> ir.Model:
    """A copy in which the type and shape of each value are stated, and each node has a name."""
    copy = model.clone()
    ShapeInferencePass()(copy)
    for number, node in enumerate(copy.graph):
        node.name = node.name or f"node{number}"
    return copy


def _lower(
    model: ir.Model, precision: Precision, calibration: NDArray[np.float32], kept: frozenset[ir.Node]
) -> tuple[ir.Model, str]:
    names = frozenset(node.name or "" for node in kept)
    if precision in HALVES:
        return narrow(model, HALVES[precision], names, calibration), ""
    ready, layer = standardise(model, calibration)
    return quantise(ready, calibration, names), layer
