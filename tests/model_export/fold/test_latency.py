"""What a fold is worth is measured as it would be served, quickly, and fairly to both sides."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np
import onnx_ir as ir
import pytest

from model_export.fold import latency
from model_export.fold.check import compare, record
from model_export.fold.files import save_model
from model_export.fold.latency import latency_of, measure_latency
from tests.model_export.fold.graphs import GraphBuilder

BUSY_SECONDS = 2  # opening two sessions takes longer while other tests run


def _save_dense(path: Path, depth: int, width: int = 64) -> Path:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    value = "x"
    for layer in range(depth):
        value = b.node("Tanh", [b.gemm(value, width, width, f"dense{layer}")], f"tanh{layer}")
    save_model(b.model((width,), [value]), path)
    return path


def test_a_network_of_many_layers_takes_longer_than_one_of_few(tmp_path: Path) -> None:
    found = measure_latency(_save_dense(tmp_path / "many.onnx", 40), _save_dense(tmp_path / "few.onnx", 2))
    assert found is not None
    assert found.before_us > 2 * found.after_us > 0


def test_large_models_are_timed_while_they_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SMALL_BYTES", 0)
    path = _save_dense(tmp_path / "model.onnx", 2)
    recording = record(path)
    comparison = compare(recording, path)
    found = latency_of(recording, comparison, path)
    assert found is not None
    assert (found.before_us, found.after_us) == (
        1e6 * (recording.serving_seconds or 0),
        1e6 * (comparison.serving_seconds or 0),
    )
    assert found.after_us > 0


def test_small_models_are_measured_in_well_under_a_second(tmp_path: Path) -> None:
    path = _save_dense(tmp_path / "model.onnx", 2)
    assert 2 * latency.NUM_BLOCKS * latency.BLOCK_SECONDS < 0.5
    start = perf_counter()
    measure_latency(path, path)
    assert perf_counter() - start < BUSY_SECONDS


def test_the_slower_half_is_the_machines() -> None:
    assert latency._microseconds([1e-6, 2e-6, 3e-6, 0.5, 0.6, 0.7]) == pytest.approx(2.0)


def test_weights_beside_a_model_count_as_its_size(tmp_path: Path) -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    model = b.model((64,), [b.gemm("x", 64, 64, "dense")])
    ir.save(model, tmp_path / "model.onnx", external_data="model.data")
    assert latency._num_bytes(tmp_path / "model.onnx") >= 64 * 64 * 4


def test_a_model_that_does_not_run_has_no_latency(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    assert measure_latency(_save_dense(tmp_path / "model.onnx", 2), tmp_path / "broken.onnx") is None
