"""What folding only the scale of a BatchNorm into a padded Conv would leave: an Add, which costs as much.

`python -m benchmarks.padding`. A Conv alone, behind a BatchNorm and behind an Add, one instance on one thread with ONNX
Runtime's optimiser on; blocks of runs take turns. This is why the fold keeps such a BatchNorm whole.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from benchmarks.tables import table
from service.runtime import ort, serving_options

SHAPES = ((1, 28, 16), (3, 32, 32), (3, 224, 64), (64, 28, 64), (64, 56, 64), (256, 14, 256))  # channels, size, outputs
FORMS = ("Conv", "BatchNormalization, Conv", "Add, Conv")
NUM_BLOCKS = 25
OPERATIONS_PER_BLOCK = 2e7


def _model(form: str, channels: int, size: int, outputs: int) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(outputs, channels, 3, 3)), "shift": rng.normal(size=(1, channels, 1, 1))}
    arrays |= {name: rng.uniform(0.5, 2, size=channels) for name in ("scale", "offset", "mean", "var")}
    front = {
        "BatchNormalization, Conv": ("BatchNormalization", ["x", "scale", "offset", "mean", "var"]),
        "Add, Conv": ("Add", ["x", "shift"]),
    }
    nodes = [helper.make_node(*front[form], ["y"])] if form in front else []
    nodes.append(helper.make_node("Conv", ["y" if nodes else "x", "w"], ["z"], pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("Relu", ["z"], ["out"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", number, size, size])
        for name, number in (("x", channels), ("out", outputs))
    ]
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "padding", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def measure(channels: int, size: int, outputs: int) -> list[float]:
    """Microseconds of one run for each form, the median over blocks."""
    sessions = [
        ort.InferenceSession(
            _model(form, channels, size, outputs).SerializeToString(),
            serving_options(),
            providers=["CPUExecutionProvider"],
        )
        for form in FORMS
    ]
    x = np.random.default_rng(1).normal(size=(1, channels, size, size)).astype(np.float32)
    runs = max(3, int(OPERATIONS_PER_BLOCK / (channels * outputs * size * size * 9)))
    blocks = [[_time_block(session, x, runs) for session in sessions] for _ in range(NUM_BLOCKS)]
    return [statistics.median(column) for column in zip(*blocks, strict=True)]


def _time_block(session: ort.InferenceSession, x: np.ndarray, runs: int) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        session.run(None, {"x": x})
    return (time.perf_counter() - start) / runs * 1e6


def main() -> None:
    """Print the table."""
    rows = [(f"{c} × {n} × {n} → {m}", *(f"{us:.0f}" for us in measure(c, n, m))) for c, n, m in SHAPES]
    Console(width=120).print(table(("µs a run", *FORMS), rows), markup=False, highlight=False)


if __name__ == "__main__":
    main()
