"""What Keras exports, with torch as its backend, against Keras's own answers in float64.

Keras writes no BatchNormalization: a Sub, a Mul and an Add with constants of shape (1, …, 1, channels) behind each
layer, on the last axis, between Casts that change nothing and, around convs, transposes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from model_export.fold import FoldedModel, fold
from tests.model_export.fold.keras_networks import NETWORKS

# Relative to the largest answer; networks of three layers answer in float32 within 1e-6 of float64, folded or not.
FLOAT32 = 1e-5
LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)

# How many BatchNorms each has, and how many must stay. `same`: zeros are padded behind the first one, before a conv,
# and they are not shifted; the second one goes through Flatten into the Dense.
BATCHNORMS = {"dense": (2, 0), "valid": (2, 0), "same": (2, 1), "normalised_first": (3, 0)}

every_network = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the networks that Keras exported, and its settings, which would go to ~/.keras otherwise."""
    folder = tmp_path_factory.mktemp("keras")
    subprocess.run(
        [sys.executable, "-m", "tests.model_export.fold.keras_networks", folder],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder / "settings")},
        capture_output=True,
        text=True,
        check=True,
    )
    return folder


@every_network
def test_every_batchnorm_that_weights_can_take_over_goes(exported: Path, name: str) -> None:
    folded = _fold(exported, name)
    batchnorms, kept = BATCHNORMS[name]
    outcomes = [entry.outcome for entry in folded.report.entries]
    assert (len(outcomes), outcomes.count("kept")) == (batchnorms, kept)


@pytest.mark.parametrize("name", [name for name, (_, kept) in BATCHNORMS.items() if kept == 0])
def test_no_scaling_is_left_where_all_fold(exported: Path, name: str) -> None:
    operators = [node.op_type for node in _fold(exported, name).model.graph]
    assert not {"Sub", "Mul", "Div", "BatchNormalization"} & set(operators), operators


@every_network
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_model_answers_as_keras_does_in_float64(exported: Path, name: str, when: str) -> None:
    model = _load(exported, name) if when == "before" else _fold(exported, name).model
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    keras = np.load(exported / f"{name}.npz")
    for batch in (slice(0, 1), slice(1, None)):
        x, expected = keras["x"][batch], keras["answers"][batch]
        for level in LEVELS:
            found = _run(model, x, level)
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() <= FLOAT32 * np.abs(expected).max()


def _load(exported: Path, name: str) -> ir.Model:
    return ir.from_proto(onnx.load(exported / f"{name}.onnx"))


def _fold(exported: Path, name: str) -> FoldedModel:
    return fold(_load(exported, name))


def _run(model: ir.Model, x: NDArray[Any], level: ort.GraphOptimizationLevel) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(answer)
