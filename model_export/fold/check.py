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

GROSS = {  # relative to the largest output: rounding in deep networks stays below, wrong folds are far above
    np.dtype(np.float16): 3e-2,
    np.dtype(np.float32): 1e-3,
    np.dtype(np.float64): 1e-6,
}
BATCHES = (1, 3)
SEED = 0
NUDGE = 1e-6  # relative: if the raw model itself jumps when its input moves by so little, a comparison says nothing

RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}

Answers = list[NDArray[np.generic]]


@dataclass(frozen=True)
class Comparison:
    """The largest difference of any output, relative to that output's largest value; or why there was none to see."""

    relative_difference: float | None
    not_compared: str = ""


def compare(before: ir.Model, after: ir.Model) -> Comparison:
    """Feed both models the same standard normal instances, one alone and three together.

    Neither is optimised by ONNX Runtime, whose own fusions are not always right.

    Raises:
        FoldInvalid: ONNX Runtime runs the first model but not the second, or their answers differ grossly.
    """
    if any(node.op_type in RANDOM for node in before.graph.all_nodes()):
        return Comparison(None, "the model itself is random")
    try:
        expected, nudged = _run(before), _run(before, nudge=NUDGE)
    except Exception as err:  # noqa: BLE001 - whatever keeps the raw model from running, it says nothing about the fold
        return Comparison(None, f"the model does not run here on random instances: {first_line(err)}")
    found = _run_folded(after)
    if not any(_is_comparable(answer) for answer in expected):
        return Comparison(None, "no output is of a floating-point dtype")
    if _excess(expected, found) > 1 >= _excess(expected, nudged):
        raise FoldInvalid(
            f"the folded model answers differently (by {_difference(expected, found):.1e} of the largest output); "
            "nothing was written, please report this"
        )
    if _excess(expected, found) > 1:
        return Comparison(None, f"the model's own answers jump when its input moves by {NUDGE:.0e}")
    return Comparison(_difference(expected, found))


def _run_folded(model: ir.Model) -> Answers:
    try:
        return _run(model)
    except Exception as err:
        raise FoldInvalid(f"ONNX Runtime does not run the folded model: {first_line(err)}; please report this") from err


def _run(model: ir.Model, *, nudge: float = 0.0) -> Answers:
    """The outputs for each batch, one after the other."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(SEED)
    feeds = [{value.name: _random(value, batch, rng) for value in session.get_inputs()} for batch in BATCHES]
    moved = [{name: (values * (1 + nudge)).astype(values.dtype) for name, values in feed.items()} for feed in feeds]
    return [answer for feed in moved for answer in session.run(None, feed)]


def _random(value: ort.NodeArg, batch: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """Standard normal values; a symbolic first axis is the batch, and no other axis may be symbolic."""
    dtypes = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
    first, *rest = value.shape or (1,)
    if value.type not in dtypes or not all(isinstance(length, int) for length in rest):
        raise ValueError(f"input {value.name} is {value.type} of shape {value.shape}")
    shape = (first if isinstance(first, int) else batch, *rest)
    return rng.normal(size=shape).astype(dtypes[value.type])


def _is_comparable(answer: object) -> bool:
    return isinstance(answer, np.ndarray) and answer.dtype in GROSS


def _excess(expected: Answers, found: Answers) -> float:
    """The largest difference as a multiple of what its dtype allows."""
    return max(_relative(*pair) / GROSS[pair[0].dtype] for pair in _pairs(expected, found))


def _difference(expected: Answers, found: Answers) -> float:
    return max(_relative(*pair) for pair in _pairs(expected, found))


def _pairs(expected: Answers, found: Answers) -> list[tuple[NDArray[np.generic], NDArray[np.generic]]]:
    return [pair for pair in zip(expected, found, strict=True) if _is_comparable(pair[0])]


def _relative(expected: NDArray[np.generic], found: NDArray[np.generic]) -> float:
    """The largest difference relative to the largest finite value; infinities and NaNs in both are no difference."""
    if expected.shape != found.shape:
        return float("inf")
    first, second = expected.astype(np.float64), found.astype(np.float64)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    if same.all():
        return 0.0
    if not np.isfinite(first[~same]).all() or not np.isfinite(second[~same]).all():
        return float("inf")
    return float(np.abs(first - second)[~same].max() / np.abs(first[np.isfinite(first)]).max(initial=1e-30))
