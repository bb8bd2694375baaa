"""A model that takes long and whose answers are exact all the same: it shuffles its values over and over, then sums."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.service.exact_models import eighths
from tests.service.tiny_models import Array, TinyModel, tiny_model, to_model

WIDTH = 512
NUM_LABELS = 10


@dataclass(frozen=True)
class SlowModel(TinyModel):
    """One dense layer behind `num_rounds` products with a matrix that only shuffles: each takes some 50 µs."""

    shuffle: Array
    num_rounds: int

    def oracle(self, instance: Array) -> Array:
        """Compute the scores in float64, exactly."""
        shuffled = np.asarray(instance, np.float64).ravel()
        for _ in range(self.num_rounds):
            shuffled = shuffled[self.shuffle]
        return shuffled @ self.weight.astype(np.float64) + self.bias

    def save(self, path: Path) -> Path:
        """Write the model as ONNX."""
        onnx.save(_looped(self), path)
        return path


def slow_model(num_rounds: int, *, seed: int = 0) -> SlowModel:
    """Build a model that takes so many rounds."""
    rng = np.random.default_rng(seed)
    signature = tiny_model((WIDTH,), num_labels=NUM_LABELS).signature
    weight, bias = eighths(rng, (WIDTH, NUM_LABELS)), eighths(rng, (NUM_LABELS,))
    return SlowModel(signature, weight, bias, rng.permutation(WIDTH), num_rounds)


def _looped(model: SlowModel) -> onnx.ModelProto:
    matrix = np.zeros((WIDTH, WIDTH), np.float32)
    matrix[model.shuffle, np.arange(WIDTH)] = 1
    weights = [
        numpy_helper.from_array(np.array(model.num_rounds), "rounds"),
        numpy_helper.from_array(np.array(True), "go on"),
        numpy_helper.from_array(matrix, "shuffle"),
        numpy_helper.from_array(model.weight, "weight"),
        numpy_helper.from_array(model.bias, "bias"),
    ]
    nodes = [
        helper.make_node("Loop", ["rounds", "go on", "x"], ["shuffled"], body=_round()),
        helper.make_node("Gemm", ["shuffled", "weight", "bias"], ["scores"]),
    ]
    instance = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", NUM_LABELS])
    return to_model(nodes, [instance], [scores], weights)


def _round() -> onnx.GraphProto:
    nodes = [
        helper.make_node("Identity", ["goes on"], ["still"]),
        helper.make_node("MatMul", ["before", "shuffle"], ["after"]),
    ]
    taken = [
        helper.make_tensor_value_info("round", TensorProto.INT64, []),
        helper.make_tensor_value_info("goes on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("before", TensorProto.FLOAT, ["batch", WIDTH]),
    ]
    given = [
        helper.make_tensor_value_info("still", TensorProto.BOOL, []),
        helper.make_tensor_value_info("after", TensorProto.FLOAT, ["batch", WIDTH]),
    ]
    return helper.make_graph(nodes, "one round", taken, given)
