"""Small ONNX graphs with a BatchNorm in them, in float64, and the oracle that runs them.

The oracle is onnx.reference (numpy, no optimiser): in float64 an exact fold differs from the raw graph only by
rounding, so that a tolerance of 1e-9 can tell a wrong fold from a right one without doubt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from model_export.fold import FoldedModel, fold

EXACT = 1e-9  # relative to the largest output; float64 folds are right to about 1e-14, wrong ones are off by 1e-2


@dataclass
class GraphBuilder:
    """Collects nodes and weights; weights are drawn from one seeded generator."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    dtype: Any = np.float64

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def weight(self, name: str, *shape: int) -> str:
        return self.constant(name, self.rng.normal(size=shape))

    def constant(self, name: str, values: Any) -> str:
        array = np.asarray(values)
        self.weights[name] = array if array.dtype == np.int64 else array.astype(self.dtype)
        return name

    def batchnorm(
        self, x: str, channels: int, name: str, *, positive: bool = False, shifts: bool = True, **attributes: Any
    ) -> str:
        """Both signs of γ unless `positive`, μ ≠ 0 and β ≠ 0 if it `shifts`, σ² from 1e-2 to 1e2."""
        self.weight(f"{name}.scale", channels)
        if positive:
            self.constant(f"{name}.scale", np.abs(self.weights[f"{name}.scale"]))
        for what in ("offset", "mean"):
            self.constant(f"{name}.{what}", self.rng.normal(size=channels) * shifts)
        self.constant(f"{name}.var", 10.0 ** self.rng.uniform(-2, 2, size=channels))
        inputs = [x, *(f"{name}.{what}" for what in ("scale", "offset", "mean", "var"))]
        return self.node("BatchNormalization", inputs, name, **attributes)

    def gemm(self, x: str, inputs: int, outputs: int, name: str, **attributes: Any) -> str:
        return self.node("Gemm", [x, self.weight(f"{name}.weight", inputs, outputs)], name, **attributes)

    def model(
        self,
        instance_shape: tuple[int | str | None, ...],
        outputs: list[str],
        *,
        batch: int | str = "batch",
        opset: int = 20,
        inputs: tuple[onnx.ValueInfoProto, ...] = (),
    ) -> ir.Model:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info("x", kind, [batch, *instance_shape]), *inputs],
            [helper.make_tensor_value_info(name, kind, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        return ir.from_proto(_with_output_shapes(proto))


def _with_output_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model's outputs must state a shape; in between, nothing is stated: the fold has to prove what it needs."""
    inferred = {output.name: output for output in onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output}
    for output in proto.graph.output:
        output.CopyFrom(inferred[output.name])
    return proto


def run(model: ir.Model, x: NDArray[Any]) -> list[NDArray[Any]]:
    """The oracle's answer. Its Elu computes the exponential of large positive values too, and throws it away."""
    with np.errstate(over="ignore"):
        return [np.asarray(output) for output in ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})]


def assert_same_answers(before: ir.Model, after: ir.Model, x: NDArray[Any], tolerance: float = EXACT) -> None:
    for expected, found in zip(run(before, x), run(after, x), strict=True):
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def fold_and_compare(
    model: ir.Model, instance_shape: tuple[int, ...], *, batches: tuple[int, ...] = (1, 3)
) -> FoldedModel:
    """Fold, check the result against the standard, and compare answers with the oracle at several batch sizes."""
    folded = fold(model)
    onnx.checker.check_model(ir.to_proto(folded.model), full_check=True)
    rng = np.random.default_rng(1)
    for batch in batches:
        assert_same_answers(model, folded.model, rng.normal(size=(batch, *instance_shape)))
    return folded


def num_batchnorms(model: ir.Model) -> int:
    return sum(node.op_type == "BatchNormalization" for node in model.graph.all_nodes())


__all__ = ["EXACT", "GraphBuilder", "TensorProto", "assert_same_answers", "fold_and_compare", "num_batchnorms", "run"]
