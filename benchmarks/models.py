"""The networks that are served: built as any other, by the pipeline's own pieces, but with random weights.

What a network has learned does not change what it costs, so no data set is needed. The statistics are the exact ones
of random instances; γ and β are random too, so that each fold has something to do.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from model_export.data.splits import Split
from model_export.export import export_raw
from model_export.fold import fold
from model_export.fold.files import save_model
from model_export.freeze import freeze
from model_export.networks import NetworkOptions, build_network, specify
from model_export.statistics import FrozenStatistics, describe_statistics, estimate_statistics, named_batchnorms
from model_export.verify import Reference, compute_reference, verify
from service.bundle import (
    Bundle,
    Example,
    FoldReport,
    Manifest,
    ParityReport,
    Signature,
    StatisticsReport,
    TensorSpec,
    TrainingReport,
    write_bundle,
)
from service.predictor import open_predictor

NUM_INSTANCES = 1000
NUM_VERIFIED = 64
NUM_EXAMPLES = 4
NUM_DECIMALS = 5  # a value is some 8 bytes of JSON, about what a pixel or a measurement is
SEED = 0

Instances = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is served: `instance_shape`, widths of the hidden layers, number of labels."""

    name: str
    instance_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    num_labels: int

    @property
    def num_values(self) -> int:
        """How many numbers an instance is."""
        return math.prod(self.instance_shape)

    def describe(self) -> str:
        """Say what the network is, from its first layer to its last."""
        flatten = ["Flatten"] if len(self.instance_shape) > 1 else []
        hidden = [part for width in self.hidden for part in (f"Dense {width}", "ELU", "BN")]
        return " → ".join([*flatten, "BN", *hidden, f"Dense {self.num_labels}", "softmax"])


SHAPES = (
    Shape(name="book784", instance_shape=(28, 28), hidden=(300, 100), num_labels=10),
    Shape(name="table30", instance_shape=(30,), hidden=(64, 32), num_labels=2),
)


@dataclass(frozen=True, kw_only=True)
class BuiltModel:
    """A shape's bundle, and the graph as it was before folding."""

    shape: Shape
    bundle: Bundle
    raw_path: Path


def random_instances(shape: Shape, count: int, *, seed: int = SEED) -> Instances:
    """`count` instances of values between 0 and 1, float32 [count, *instance_shape]."""
    values = np.random.default_rng(seed).random((count, *shape.instance_shape))
    return values.round(NUM_DECIMALS).astype(np.float32)


def build_model(shape: Shape, root: Path) -> BuiltModel:
    """Build a network of this shape, freeze, export, fold and verify it, and write its bundle below `root`."""
    network, instances = _network(shape), random_instances(shape, NUM_INSTANCES)
    statistics = estimate_statistics(network, instances)
    frozen = freeze(network, statistics)
    raw = export_raw(frozen, instance_shape=shape.instance_shape)
    folded = fold(raw)
    raw_path, folded_path = root / f"{shape.name}-raw.onnx", root / f"{shape.name}-folded.onnx"
    save_model(raw, raw_path)
    save_model(folded.model, folded_path)
    held_out = Split(instances[:NUM_VERIFIED], np.zeros(NUM_VERIFIED, dtype=np.int64))
    reference = compute_reference(frozen, held_out.instances)
    verification = verify(reference, open_predictor(folded_path, _signature(shape), "cpu"), held_out)
    bundle = write_bundle(
        root / shape.name / "1",
        manifest=_manifest(shape, _describe(network, statistics, instances), folded.report, verification.parity),
        model_path=folded_path,
        examples=_examples(held_out, reference),
    )
    return BuiltModel(shape=shape, bundle=bundle, raw_path=raw_path)


def _network(shape: Shape) -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(SEED)
        options = NetworkOptions(network="mlp", hidden=shape.hidden)
        spec = specify(options, instance_shape=shape.instance_shape, num_outputs=shape.num_labels)
        network = build_network(spec)
        for batchnorm in named_batchnorms(network).values():
            if batchnorm.weight is not None and batchnorm.bias is not None:
                nn.init.uniform_(batchnorm.weight, 0.5, 1.5)
                nn.init.normal_(batchnorm.bias)
    return network


def _describe(network: nn.Module, statistics: dict[str, FrozenStatistics], instances: Instances) -> StatisticsReport:
    layers = describe_statistics(network, statistics, instances)
    return StatisticsReport(method="exact", num_instances=len(instances), layers=layers)


def _signature(shape: Shape) -> Signature:
    return Signature(
        input=TensorSpec(name="instance", dtype="float32", shape=shape.instance_shape),
        outputs=tuple(
            TensorSpec(name=name, dtype="float32", shape=(shape.num_labels,)) for name in ("scores", "logits")
        ),
        labels=tuple(map(str, range(shape.num_labels))),
    )


def _manifest(shape: Shape, statistics: StatisticsReport, folds: FoldReport, parity: ParityReport) -> Manifest:
    return Manifest(
        name=shape.name,
        version="1",
        signature=_signature(shape),
        statistics=statistics,
        fold=folds,
        parity=parity,
        training=TrainingReport(
            data="random", network="mlp", seed=SEED, num_epochs=0, num_train=0, num_test=0, test_accuracy=0.0
        ),
        producer={"onnxruntime": ort.__version__},
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )


def _examples(held_out: Split, reference: Reference) -> tuple[Example, ...]:
    return tuple(_example(held_out, reference, index) for index in range(NUM_EXAMPLES))


def _example(held_out: Split, reference: Reference, index: int) -> Example:
    instance: Any = held_out.instances[index].ravel().tolist()
    outputs = {name: tuple(rows[index].tolist()) for name, rows in reference.answers.items()}
    return Example(instance=instance, outputs=outputs)
