"""Runs a model before and after folding side by side in ONNX Runtime, as a last look at what is about to be written.

A wrong fold is off by percents; a right one by rounding. The bound between them is a gross one on purpose: the exact
proof of a network that was trained here is `verify.py`, on its own held-out instances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model_export.errors import FoldInvalid, first_line
from service.runtime import ort

GROSS = 1e-3  # relative to the largest output; float32 rounding in deep networks stays below, wrong folds far above
BATCHES = (1, 3)
SEED = 0


@dataclass(frozen=True)
class Comparison:
    """The largest difference of any output, relative to that output's largest value; or why there was none to see."""

    relative_difference: float | None
    not_compared: str = ""


def compare(before: ir.Model, after: ir.Model) -> Comparison:
    """Feed both models the same standard normal instances, one alone and three together.

    Raises:
        FoldInvalid: ONNX Runtime runs the first model but not the second, or their answers differ grossly.
    """
    try:
        expected = [_run(before, batch) for batch in BATCHES]
    except Exception as err:  # noqa: BLE001 - whatever keeps the raw model from running, it says nothing about the fold
        return Comparison(None, f"the model does not run here on random instances: {first_line(err)}")
    found = _run_folded(after)
    difference = max(
        _difference(*pair) for answers in zip(expected, found, strict=True) for pair in zip(*answers, strict=True)
    )
    if not difference <= GROSS:
        raise FoldInvalid(
            f"the folded model answers differently (by {difference:.1e} of the largest output, {GROSS:.0e} allowed); "
            "nothing was written, please report this"
        )
    return Comparison(difference)


def _run_folded(model: ir.Model) -> list[list[NDArray[np.generic]]]:
    try:
        return [_run(model, batch) for batch in BATCHES]
    except Exception as err:
        raise FoldInvalid(f"ONNX Runtime does not run the folded model: {first_line(err)}; please report this") from err


def _run(model: ir.Model, batch: int) -> list[NDArray[np.generic]]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(SEED)
    feeds = {value.name: _random(value, batch, rng) for value in session.get_inputs()}
    return list(session.run(None, feeds))


def _random(value: ort.NodeArg, batch: int, rng: np.random.Generator) -> NDArray[np.generic]:
    """Standard normal values; a symbolic first axis is the batch, and no other axis may be symbolic."""
    dtypes = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
    first, *rest = value.shape or (1,)
    if value.type not in dtypes or not all(isinstance(length, int) for length in rest):
        raise ValueError(f"input {value.name} is {value.type} of shape {value.shape}")
    shape = (first if isinstance(first, int) else batch, *rest)
    return rng.normal(size=shape).astype(dtypes[value.type])


def _difference(expected: NDArray[np.generic], found: NDArray[np.generic]) -> float:
    """The largest difference relative to the largest expected value; infinite where the two are not comparable."""
    if expected.shape != found.shape or not np.isfinite(expected).all():
        return 0.0 if np.array_equal(expected, found, equal_nan=True) else float("inf")
    if expected.size == 0:
        return 0.0
    first, second = expected.astype(np.float64), found.astype(np.float64)
    return float(np.abs(first - second).max() / max(np.abs(first).max(), np.finfo(np.float32).tiny))
