"""int8, statically: weights in integers, each output channel with a scale of its own, activations by calibrated ranges.

ONNX Runtime's own quantiser writes the model in QDQ form. What was chosen, each over digits and Fashion-MNIST (mlp,
convnet; `python -m benchmarks.precision` measures it again):

ranges        the smallest and largest value over the calibration instances. `entropy` chose the same; `percentile`
              was no better, and what it cuts off moved one score on Fashion-MNIST (mlp) by 0.78 instead of 0.09.
weights       7 bits of 8 (`reduce_range`). x86 processors without VNNI add pairs of products in 16 bits and saturate:
              with 8 bits the convnet's scores moved by up to 0.28, with 7 by 0.08. A bundle must answer alike on both.
activations   unsigned 8 bits: what the same kernels multiply by; signed ones gave the same answers.
operators     layers, and what passes integers on unchanged. Everything else computes in float32.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import tempfile
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from model_export.errors import PrecisionUnavailable, first_line
from model_export.ir import ir
from model_export.precision.probe import BATCH_SIZE
from service.runtime import ort

LAYERS_AND_PASSING = (
    *("Conv", "Gemm", "MatMul"),
    *("Clip", "Flatten", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"),
)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the module's head says was chosen; other values are for measuring that again.

    ranges: ONNX Runtime's name of the way ranges are taken.
    reduce_range: 7 bits for a weight.
    """

    ranges: Literal["MinMax", "Entropy", "Percentile"] = "MinMax"
    reduce_range: bool = True


CHOSEN = Choices()


def quantise(
    model: ir.Model, instances: NDArray[np.float32], kept: AbstractSet[str], choices: Choices = CHOSEN
) -> ir.Model:
    """Give the model in int8; nodes whose name is in `kept` stay float32, and the model is left as it is.

    Args:
        model: folded, float32.
        instances: what the ranges of activations are taken over, float32 (N, *instance_shape).
        kept: names of nodes.
        choices: of ranges and bits.

    Raises:
        PrecisionUnavailable: ONNX Runtime can not quantise the model; says why.
    """
    quantization = _quantiser()
    reader = _Reader(str(model.graph.inputs[0].name), instances)
    with tempfile.TemporaryDirectory(prefix="foldserve-") as folder, _quiet():
        path = Path(folder) / "model.onnx"
        try:
            quantization.quantize_static(
                ir.to_proto(model),
                path,
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(LAYERS_AND_PASSING),
                per_channel=True,
                reduce_range=choices.reduce_range,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=sorted(kept),
                calibrate_method=quantization.CalibrationMethod[choices.ranges],
                extra_options={"MatMulConstBOnly": True},
            )
        except Exception as err:  # the quantiser's errors have no common base class
            raise PrecisionUnavailable(f"ONNX Runtime can not quantise this model: {first_line(err)}") from err
        return ir.from_proto(onnx.load(path))


class _Reader:
    """The calibration instances in batches, as the quantiser asks for them."""

    def __init__(self, input_name: str, instances: NDArray[np.float32]) -> None:
        starts = range(0, len(instances), BATCH_SIZE)
        self._batches = iter([{input_name: instances[start : start + BATCH_SIZE]} for start in starts])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch, or None behind the last."""
        return next(self._batches, None)


def _quantiser() -> Any:
    """ONNX Runtime's package, behind `service.runtime`'s door; what it does to the import path is undone.

    On its way in it puts a folder of its own on the path, with modules called `benchmark`, `float16` and the like,
    which a network of one's own could meet by accident.
    """
    before = list(sys.path)
    try:
        return importlib.import_module(f"{ort.__name__}.quantization")
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's progress and advice off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
