"""Training on data of one's own: a stream learns, stops, goes on, is measured, exported and served."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_export.checkpoint import load_splits_of, read_checkpoint
from model_export.data import DataSource
from model_export.errors import DataInvalid
from model_export.networks import NetworkOptions
from model_export.pipeline import ExportRequest, build_bundle
from model_export.train import TrainingInterrupted, TrainingResult, resume
from service.predictor import open_predictor
from tests.model_export.own_data import NUM_TRAIN, Points
from tests.model_export.runs import WATCHED, Watched, small_run

SMALL = NetworkOptions(hidden=(8,))


def run(folder: Path, name: str, network: NetworkOptions = SMALL, **options: Any) -> TrainingResult:
    source = DataSource(spec=f"tests.model_export.own_data:{name}")
    return small_run(folder, network=network, source=source, **{"epochs": 3, **options})


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path).state_dict


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", ["Noisy", "InWorkers"])
def test_a_stream_is_learned_and_the_same_seed_gives_the_same_weights(tmp_path: Path, name: str) -> None:
    first, second = (run(tmp_path / place, name, epochs=6, learning_rate=0.05) for place in ("first", "second"))
    assert first.test_accuracy > 0.9  # chance is 0.33
    assert equal(weights(first.last_path), weights(second.last_path))
    assert read_checkpoint(first.best_path).run.options.batch_size == 16  # the loader's, not the default


def test_an_interrupted_stream_that_is_resumed_equals_one_that_was_not(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", "Noisy", WATCHED, epochs=4)
    Watched.in_step = {2 * (NUM_TRAIN // 16) + 3: lambda: signal.raise_signal(signal.SIGINT)}
    try:
        with pytest.raises(TrainingInterrupted):
            run(tmp_path / "cut", "Noisy", WATCHED, epochs=4)
    finally:
        Watched.in_step = {}
    resumed = resume(tmp_path / "cut" / "last.ckpt", device="cpu", progress=False)
    assert equal(weights(resumed.last_path), weights(whole.last_path))
    assert resumed.run == whole.run


def test_standardise_is_set_from_the_calibration_batches(tmp_path: Path) -> None:
    path = run(tmp_path, "Noisy", NetworkOptions(placement="none", hidden=(4,)), epochs=1).best_path
    points = Points(NUM_TRAIN, seed=0).points.double()
    rounding = 1e-6  # to float32, of values up to 12
    assert torch.allclose(weights(path)["standardise.mean"].double(), points.mean(dim=0), rtol=rounding)
    expected = points.std(dim=0, correction=0)
    assert torch.allclose(weights(path)["standardise.std"].double(), expected, rtol=rounding)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BrokenLater", r"BrokenLater\.train_dataloader\(\) failed: OSError\('the disk is gone'\)"),
        ("MoreClassesInTraining", r"train_dataloader\(\): expected labels from 0 to 2, found 3"),
        ("OneLeft", "a batch of one instance has no variance for BatchNorm"),
    ],
)
def test_what_an_epoch_brings_to_light_is_refused_by_name(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataInvalid, match=message):
        run(tmp_path, name)


def test_a_stream_is_served_with_exact_statistics_of_the_calibration_set(tmp_path: Path) -> None:
    result = run(tmp_path / "run", "Noisy", epochs=6, learning_rate=0.05)
    bundle = build_bundle(ExportRequest(checkpoint=result.best_path, out=tmp_path / "models" / "points" / "1"))
    points = Points(NUM_TRAIN, seed=0).points.double().numpy()
    statistics = bundle.manifest.statistics
    assert (statistics.method, statistics.num_instances) == ("exact", NUM_TRAIN)
    assert bundle.manifest.training.num_train == NUM_TRAIN
    rounding = 1e-6  # float32 holds the mean of the first BatchNorm's input, of values up to 12
    first = statistics.layers[0]
    assert first.residual_mean is not None
    assert first.residual_mean < rounding * np.abs(points).max()
    test = load_splits_of(read_checkpoint(result.best_path)).test
    predictor = open_predictor(bundle.directory / "model.onnx", bundle.manifest.signature, "cpu")
    answers = [predictor.predict(instance).label for instance in test.instances]
    right = np.mean([bundle.manifest.signature.labels.index(label) for label in answers] == test.labels)
    assert right > 0.9
