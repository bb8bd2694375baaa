"""Opens a model in ONNX Runtime at one of two levels of optimisation, to be run on random instances that it takes.

Sessions are opened from files: ONNX Runtime reads the weights, and external data, itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.memory import return_memory
from service.device import CPU_PROVIDER
from service.runtime import ONLY_FATAL, ort, serving_options

BATCHES = (1, 2)
FREE_SIZES = (8, 16, 32, 64, 224)  # tried in this order for free axes behind the first, such as a sequence's length
SEED = 0

UNOPTIMISED, SERVING = "unoptimised", "serving"
FLOATS = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64}
INTEGERS = {
    "tensor(bool)": np.bool_,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}

Array = NDArray[Any]
Arrays = dict[str, Array]  # by name: what a model is fed, or what it answers


def open_session(path: Path, level: str) -> ort.InferenceSession:
    """A session on the CPU, straight from the file: ONNX Runtime reads the weights, and external data, itself."""
    return_memory()  # what the last session held
    options = serving_options() if level == SERVING else ort.SessionOptions()
    if level == UNOPTIMISED:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.intra_op_num_threads if level == SERVING else 0  # all cores, to be done
    options.use_deterministic_compute = True
    options.log_severity_level = ONLY_FATAL
    return ort.InferenceSession(str(path), options, providers=[CPU_PROVIDER])


def run(session: ort.InferenceSession, feed: Arrays) -> Arrays:
    """All answers that are tensors, by name."""
    names = [output.name for output in session.get_outputs()]
    answers = zip(names, session.run(names, feed), strict=True)
    return {name: answer for name, answer in answers if isinstance(answer, np.ndarray)}


def find_feeds(session: ort.InferenceSession) -> list[tuple[Arrays, Arrays]]:
    """Random instances that the model runs on, with its answers, for each batch size that it takes; at least one.

    Raises:
        Exception: ONNX Runtime's own, for the last size that was tried: there are no such instances.
    """
    free_size, alone = find_one_feed(session)
    feed = _random_feed(session, BATCHES[1], free_size)
    if _shapes(feed) == _shapes(alone[0]):
        return [alone]
    try:
        return [alone, (feed, run(session, feed))]
    except Exception:  # noqa: BLE001 - ONNX Runtime's errors have no common base class; the batch is fixed somewhere
        return [alone]


def find_one_feed(session: ort.InferenceSession) -> tuple[int, tuple[Arrays, Arrays]]:
    """A random instance that the model runs on, with its answers; and the size of axes that the model leaves open.

    Raises:
        Exception: ONNX Runtime's own, for the last size that was tried.
    """
    *sizes, last = FREE_SIZES if any(_free_axes(value) for value in session.get_inputs()) else FREE_SIZES[:1]
    for size in sizes:
        feed = _random_feed(session, BATCHES[0], size)
        try:
            return size, (feed, run(session, feed))
        except Exception:  # noqa: BLE001, S112 - ONNX Runtime's errors have no common base class; the next may do
            continue
    feed = _random_feed(session, BATCHES[0], last)
    return last, (feed, run(session, feed))


def _free_axes(value: ort.NodeArg) -> list[int]:
    """The axes of an input, behind the batch, that the model leaves open."""
    return [axis for axis, length in enumerate(value.shape) if axis and not isinstance(length, int)]


def _shapes(feed: Arrays) -> list[tuple[int, ...]]:
    return [array.shape for array in feed.values()]


def _random_feed(session: ort.InferenceSession, batch: int, free_size: int) -> Arrays:
    rng = np.random.default_rng([SEED, batch])
    return {value.name: _random(value, batch, free_size, rng) for value in session.get_inputs()}


def _random(value: ort.NodeArg, batch: int, free_size: int, rng: np.random.Generator) -> Array:
    """Standard normal values, or zeros and ones where integers are asked for: those are in any vocabulary."""
    sizes = (free_size if axis else batch for axis in range(len(value.shape)))
    shape = tuple(length if isinstance(length, int) else size for length, size in zip(value.shape, sizes, strict=True))
    if value.type in FLOATS:
        return rng.normal(size=shape).astype(FLOATS[value.type])
    if value.type in INTEGERS:
        return rng.integers(2, size=shape).astype(INTEGERS[value.type])
    raise ValueError(f"input {value.name} is a {value.type}, expected numbers")
