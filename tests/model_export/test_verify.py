"""Parity is measured against float64, on the model that is served, and beyond tolerance nothing is let through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from model_export.data import Split
from model_export.errors import ParityFailed
from model_export.export import export_raw
from model_export.fold import fold
from model_export.fold.files import save_model
from model_export.freeze import freeze
from model_export.statistics import estimate_statistics
from model_export.verify import SCORES_TOLERANCE, compute_reference, verify
from service.predictor import Predictor, open_predictor

SEED = 0


def _network() -> nn.Module:
    torch.manual_seed(SEED)
    return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 8), nn.ELU(), nn.BatchNorm1d(8), nn.Linear(8, 3))


def _split() -> Split:
    rng = np.random.default_rng(SEED)
    instances = rng.normal(3.0, 2.0, size=(40, 6)).astype(np.float32)
    return Split(instances, rng.integers(0, 3, size=40))


def _served(network: nn.Module, folder: Path, *, bias_error: float = 0.0) -> Predictor:
    model = fold(export_raw(network, instance_shape=(6,))).model
    bias = next(value for name, value in model.graph.initializers.items() if name == "4.bias")
    assert bias.const_value is not None
    bias.const_value = ir.tensor(bias.const_value.numpy() + np.array([bias_error, 0, 0], dtype=np.float32))
    save_model(model, folder / "model.onnx")
    return open_predictor(folder / "model.onnx", device="cpu")


def _frozen() -> nn.Module:
    network = _network()
    return freeze(network, estimate_statistics(network, _split().instances))


def test_a_folded_model_agrees_with_its_network_within_tolerance(tmp_path: Path) -> None:
    frozen = _frozen()
    reference = compute_reference(frozen, _split().instances)
    verification = verify(reference, _served(frozen, tmp_path), _split())
    scores = next(output for output in verification.parity.outputs if output.output == "scores")
    assert 0 < scores.mean_difference <= scores.max_difference <= SCORES_TOLERANCE
    assert verification.parity.label_agreement == 1.0
    assert verification.parity.num_instances == 40
    assert verification.parity.reference_dtype == "float64"


def test_the_differences_are_those_of_an_independent_computation(tmp_path: Path) -> None:
    frozen, split = _frozen(), _split()
    predictor = _served(frozen, tmp_path)
    verification = verify(compute_reference(frozen, split.instances), predictor, split)
    with torch.inference_mode():
        expected = frozen.double()(torch.from_numpy(split.instances).double()).numpy()
    found = np.stack([predictor.outputs(instance)["logits"] for instance in split.instances])
    logits = next(output for output in verification.parity.outputs if output.output == "logits")
    assert logits.max_difference == pytest.approx(np.abs(found - expected).max())
    assert verification.accuracy == pytest.approx((found.argmax(1) == split.labels).mean())


def test_a_model_that_is_off_by_a_hundredth_is_not_let_through(tmp_path: Path) -> None:
    frozen = _frozen()
    reference = compute_reference(frozen, _split().instances)
    with pytest.raises(ParityFailed, match=r"scores differ by .* at held-out instance \d+, allowed are 1.00e-05"):
        verify(reference, _served(frozen, tmp_path, bias_error=0.01), _split())


def test_scores_that_are_not_numbers_are_not_let_through(tmp_path: Path) -> None:
    frozen = _frozen()
    reference = compute_reference(frozen, _split().instances)
    with pytest.raises(ParityFailed):
        verify(reference, _served(frozen, tmp_path, bias_error=float("nan")), _split())


class _WithFloat32Inside(nn.Module):
    """Computes with a constant that does not follow `.double()`, as networks of one's own may."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 3)

    def forward(self, instances: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.dense(instances.to(torch.float32))
        return logits


def test_a_network_that_can_not_compute_in_float64_is_its_own_reference_in_float32() -> None:
    torch.manual_seed(SEED)
    network = _WithFloat32Inside().eval()
    reference = compute_reference(network, _split().instances)
    with torch.inference_mode():
        expected = network(torch.from_numpy(_split().instances)).numpy()
    assert reference.dtype == "float32"
    assert np.allclose(reference.answers["logits"], expected, rtol=0, atol=1e-6)


def test_the_reference_leaves_the_network_as_it_was() -> None:
    frozen = _frozen()
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    compute_reference(frozen, _split().instances)
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
