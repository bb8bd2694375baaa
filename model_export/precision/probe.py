"""What goes on inside a model: its inner values for some instances, by ONNX Runtime on the CPU, in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.ir import ir
from service.device import CPU_PROVIDER
from service.runtime import ort, serving_options

BATCH_SIZE = 100

Array = NDArray[Any]


def run_probe(model: ir.Model, names: Sequence[str], instances: NDArray[np.float32]) -> Iterator[list[Array]]:
    """The values of these names, the model's input among them if it is named, in batches of the instances."""
    instance = str(model.graph.inputs[0].name)
    computed = [name for name in names if name != instance]
    session = _open(model, computed) if computed else None
    for start in range(0, len(instances), BATCH_SIZE):
        batch = {instance: instances[start : start + BATCH_SIZE]}
        answers = session.run(computed, batch) if session else []
        found = batch | dict(zip(computed, answers, strict=True))
        yield [found[name] for name in names]


def _open(model: ir.Model, names: Sequence[str]) -> ort.InferenceSession:
    """The model as it is, not optimised, with the values of these names as outputs too."""
    copy = model.clone()
    outputs = {str(value.name) for value in copy.graph.outputs}
    inner = {str(value.name): value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.extend(inner[name] for name in names if name not in outputs)
    options = serving_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(ir.to_proto(copy).SerializeToString(), options, providers=[CPU_PROVIDER])
