"""Tiny real models and bundles, each with the numpy that says what it computes: the oracle of the tests around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.bundle import (
    Bundle,
    Example,
    Feature,
    FoldReport,
    LayerStatistics,
    LedgerEntry,
    Manifest,
    OutputParity,
    ParityReport,
    Signature,
    StatisticsReport,
    TensorSpec,
    TrainingReport,
    write_bundle,
)

Array = NDArray[Any]
# A handful of float32 operations on values around 1: a few units in the last place of 1.
TOLERANCE = 1e-5
ONNX_TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}


@dataclass(frozen=True)
class TinyModel:
    """Flatten, then one dense layer: scores = x·weight + bias."""

    signature: Signature
    weight: Array
    bias: Array

    def oracle(self, instance: Array) -> Array:
        """Compute the scores in float64."""
        return instance.astype(np.float64).ravel() @ self.weight.astype(np.float64) + self.bias

    def save(self, path: Path) -> Path:
        """Write the model as ONNX."""
        onnx.save(_linear(self), path)
        return path


def tiny_model(
    shape: tuple[int, ...] = (4,),
    *,
    num_labels: int = 3,
    labels: tuple[str, ...] = (),
    features: tuple[Feature, ...] = (),
    dtype: str = "float32",
    scale: float = 1.0,
) -> TinyModel:
    """Build a model with fixed random weights."""
    rng = np.random.default_rng(7)
    signature = Signature(
        input=TensorSpec(name="x", dtype=dtype, shape=shape),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(num_labels,)),),
        labels=labels,
        features=features,
    )
    weight = (scale * rng.normal(size=(int(np.prod(shape)), num_labels))).astype(np.float32)
    return TinyModel(signature, weight, rng.normal(size=num_labels).astype(np.float32))


def _linear(model: TinyModel) -> onnx.ModelProto:
    spec = model.signature.input
    nodes = [
        helper.make_node("Cast", ["x"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["as_float"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["scores"]),
    ]
    weights = [numpy_helper.from_array(model.weight, "weight"), numpy_helper.from_array(model.bias, "bias")]
    instance = helper.make_tensor_value_info("x", ONNX_TYPES[spec.dtype], ["batch", *spec.shape])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(model.bias)])
    return to_model(nodes, [instance], [scores], weights)


def to_model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]) -> onnx.ModelProto:
    """Put a graph together, for an opset that every supported ONNX Runtime reads."""
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def tiny_manifest(model: TinyModel, *, name: str = "digits", version: str = "1") -> Manifest:
    """Describe a tiny model as an export would."""
    return Manifest(
        name=name,
        version=version,
        signature=model.signature,
        statistics=StatisticsReport(
            method="exact",
            num_instances=100,
            layers=(LayerStatistics(batchnorm="bn1", num_channels=3, num_values=100, eps=1e-5, max_gain=2.0),),
        ),
        fold=FoldReport(
            entries=(LedgerEntry(batchnorm="bn1", outcome="folded", into=("dense",), direction="next"),),
            num_nodes_before=4,
            num_nodes_after=3,
        ),
        parity=ParityReport(
            num_instances=100,
            outputs=(OutputParity(output="scores", max_difference=1e-7, mean_difference=1e-8, tolerance=TOLERANCE),),
            label_agreement=1.0,
            reference_dtype="float64",
            provider="CPUExecutionProvider",
        ),
        training=TrainingReport(
            data="made up", network="dense", seed=7, num_epochs=1, num_train=100, num_test=20, test_accuracy=0.9
        ),
        producer={"foldserve": "test"},
        created="2026-01-01T00:00:00Z",
    )


def tiny_examples(model: TinyModel, count: int = 3) -> tuple[Example, ...]:
    """Record random instances with the oracle's answers."""
    rng = np.random.default_rng(11)
    spec = model.signature.input
    instances = [rng.normal(size=spec.shape).astype(spec.dtype) for _ in range(count)]
    return tuple(
        Example(instance=instance.ravel().tolist(), outputs={"scores": tuple(model.oracle(instance).tolist())})
        for instance in instances
    )


def write_tiny_bundle(
    root: Path,
    model: TinyModel,
    *,
    name: str = "digits",
    version: str = "1",
    examples: tuple[Example, ...] | None = None,
) -> Bundle:
    """Write a whole bundle below `root`."""
    model_path = model.save(root / "draft.onnx")
    bundle = write_bundle(
        root / name / version,
        manifest=tiny_manifest(model, name=name, version=version),
        model_path=model_path,
        examples=tiny_examples(model) if examples is None else examples,
    )
    model_path.unlink()
    return bundle


def with_wrong_answer(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    """Change one number of the last example's answer."""
    *others, last = examples
    first, *rest = last.outputs["scores"]
    return (*others, replace(last, outputs={"scores": (first + 0.5, *rest)}))
