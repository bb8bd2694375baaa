"""Published architectures, as users export them, against torch itself in float64.

How many BatchNorms must go is reasoned out of the architecture, in `real_networks`, and not read off a result.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from model_export.export.tidy import tidy
from model_export.export.trace import trace
from model_export.fold import FoldedModel, fold
from tests.model_export.fold import exporters
from tests.model_export.fold.graphs import EXACT, num_batchnorms
from tests.model_export.fold.real_networks import REAL_NETWORKS, build, resnet50

EXPORTS = ("dynamo", "dynamo, tidied", "torchscript", "torchscript, constants folded")
BATCH_SIZES = (1, 3)
NUM_JITTERS = 4
LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)

# In units of the unfolded model's own noise: how far from float64 it answers in float32, its input jittered by one ulp.
# Another order of summation is as good as another jitter: measured are factors of 0.3 to 2.2. A wrong fold is 1e3 off.
NOISE_UNITS = 8.0

# Their dynamo exports hold nothing that another one's does not, and cost three seconds each.
ONLY_BY_TORCHSCRIPT = {"pyramidnet", "densenet", "erfnet"}
CASES = [
    (name, export)
    for name in REAL_NETWORKS
    for export in EXPORTS
    if name not in ONLY_BY_TORCHSCRIPT or export.startswith("torchscript")
]

every_case = pytest.mark.parametrize(("name", "export"), CASES)


@every_case
def test_every_batchnorm_that_weights_can_take_over_goes(name: str, export: str) -> None:
    network, folded = REAL_NETWORKS[name], _folded(name, export)
    kept = [f"{entry.batchnorm}: {entry.reason}" for entry in folded.report.entries if entry.outcome == "kept"]
    assert len(folded.report.entries) == network.batchnorms
    assert len(kept) == num_batchnorms(folded.model) == network.kept, "\n".join([network.why, *kept])


@every_case
def test_the_folded_model_answers_as_torch_does_in_float64(name: str, export: str) -> None:
    folded = _folded(name, export).model
    onnx.checker.check_model(ir.to_proto(folded), full_check=True)
    for batch_size in BATCH_SIZES:
        question = _question(name, batch_size)
        tolerance = NOISE_UNITS * _noise(_raw(name, export), question)
        for level in LEVELS:
            assert _distance(_run(folded, question.x, level), question.answer) <= tolerance


@every_case
def test_the_export_is_the_network_and_holds_its_batchnorms(name: str, export: str) -> None:
    raw = _raw(name, export)
    assert num_batchnorms(raw) == REAL_NETWORKS[name].batchnorms
    for batch_size in BATCH_SIZES:
        assert _noise(raw, _question(name, batch_size)) <= FLOAT32


# ReLU and sums only: onnx.reference computes Erf in float32, whatever it is given.
@pytest.mark.parametrize("name", ["preresnet", "pyramidnet", "erfnet", "mobileone"])
def test_in_float64_a_fold_changes_nothing_but_the_last_digits(name: str) -> None:
    network, example = copy.deepcopy(_network(name)).double(), _example(name).double()
    raw = exporters.torchscript(network, example, constant_folding=False)
    question = _question(name, 3)
    reference = onnx.reference.ReferenceEvaluator(ir.to_proto(fold(raw).model))
    (answer,) = reference.run(["logits"], {"x": question.x.astype(np.float64)})
    assert _distance(np.asarray(answer), question.answer) <= EXACT


def test_the_export_command_folds_them_alike() -> None:
    traced = trace(copy.deepcopy(_network("convmixer")), _example("convmixer"), input_name="x")
    tidy(traced)
    assert num_batchnorms(fold(traced).model) == REAL_NETWORKS["convmixer"].kept


def test_the_benchmarks_resnet50_is_resnet50() -> None:
    assert sum(parameter.numel() for parameter in resnet50().parameters()) == 25_557_032


# The unfolded models' answers are within 1e-5 of float64's: real statistics keep activations of the order of one.
FLOAT32 = 1e-4


@dataclass(frozen=True)
class Question:
    """Instances, and torch's answer in float64."""

    x: NDArray[np.float32]
    answer: NDArray[np.float64]


@cache
def _network(name: str) -> nn.Module:
    return build(REAL_NETWORKS[name])


@cache
def _raw(name: str, export: str) -> ir.Model:
    network, example = _network(name), _example(name)
    match export:
        case "dynamo":
            return exporters.dynamo(network, example)
        case "dynamo, tidied":
            tidied = _raw(name, "dynamo").clone()
            tidy(tidied)
            return tidied
        case _:
            return exporters.torchscript(network, example, constant_folding="constants folded" in export)


@cache
def _folded(name: str, export: str) -> FoldedModel:
    return fold(_raw(name, export))


@cache
def _question(name: str, batch_size: int) -> Question:
    rng = np.random.default_rng(batch_size)
    x = rng.normal(size=(batch_size, *REAL_NETWORKS[name].instance_shape)).astype(np.float32)
    with torch.no_grad():
        answer = copy.deepcopy(_network(name)).double()(torch.from_numpy(x).double())
    return Question(x, answer.numpy())


def _example(name: str) -> torch.Tensor:
    """Two instances: of one, torch's exporter would make a constant of the batch size."""
    return torch.zeros(2, *REAL_NETWORKS[name].instance_shape)


def _noise(model: ir.Model, question: Question) -> float:
    """How far from float64's the float32 answers are, at the input and one ulp beside it, at every level."""
    rng = np.random.default_rng(0)
    jittered = [_one_ulp_beside(question.x, rng) for _ in range(NUM_JITTERS)]
    return max(_distance(_run(model, x, level), question.answer) for x in [question.x, *jittered] for level in LEVELS)


def _one_ulp_beside(x: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    infinity = np.float32(np.inf)
    return np.nextafter(x, np.where(rng.random(x.shape) < 0.5, -infinity, infinity))


def _distance(found: NDArray[Any], expected: NDArray[Any]) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _run(model: ir.Model, x: NDArray[Any], level: ort.GraphOptimizationLevel) -> NDArray[Any]:
    (answer,) = _session(model, level).run(["logits"], {"x": x})
    return np.asarray(answer)


@cache
def _session(model: ir.Model, level: ort.GraphOptimizationLevel) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    content = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
