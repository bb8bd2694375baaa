"""Whether a model's weights and values fit into a narrow type's range: what would become infinite is refused by name.

On the CPU ONNX Runtime computes fp16 in float32, so an overflow would show on a GPU only, where nobody has looked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_export.errors import PrecisionUnavailable
from model_export.ir import ir
from model_export.precision.probe import run_probe
from service.bundle import Precision


def check_range(
    model: ir.Model, values: Sequence[ir.Value], precision: Precision, largest: float, instances: NDArray[np.float32]
) -> None:
    """See that none of `values`, weights or computed for `instances`, is beyond `largest`.

    Raises:
        PrecisionUnavailable: one is; names the first, and says how large it is.
    """
    for name, found in _reaches(model, values, instances).items():
        if not found <= largest:  # so that NaN is refused too
            raise PrecisionUnavailable(
                f"--precision {precision} can not hold this model: {name!r} reaches {found:.3g}, the largest number is "
                f"{largest:.5g}. Scale the inputs, or choose --precision {'bf16, ' * (precision == 'fp16')}int8 or fp32"
            )


def _reaches(model: ir.Model, values: Sequence[ir.Value], instances: NDArray[np.float32]) -> dict[str, float]:
    """The largest magnitude of each value, in the values' order, by its name."""
    reaches = {str(value.name): 0.0 for value in values}
    for value in values:
        if value.is_initializer() and value.const_value is not None:
            reaches[str(value.name)] = _largest(value.const_value.numpy())
    computed = [str(value.name) for value in values if not value.is_initializer()]
    for answers in run_probe(model, computed, instances):
        for name, found in zip(computed, answers, strict=True):
            reaches[name] = float(np.maximum(reaches[name], _largest(found)))  # keeps a NaN
    return reaches


def _largest(values: NDArray[np.float32]) -> float:
    return float(np.abs(values).max(initial=0.0))
