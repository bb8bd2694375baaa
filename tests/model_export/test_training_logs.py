"""Logs: what stands in the checkpoint's history stands in them, and steps in between."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from model_export.errors import ExportError
from model_export.networks import NetworkOptions
from model_export.options import TrainingOptions
from model_export.train import Log, TrainingResult, train
from model_export.training.logs import open_log
from tests.model_export.runs import DIGITS, STEPS_IN_AN_EPOCH

EPOCHS = 3


def run(folder: Path, log: Log) -> TrainingResult:
    options = TrainingOptions(epochs=EPOCHS, batch_size=128)
    return train(
        DIGITS,
        NetworkOptions(hidden=(8,)),
        options,
        run_dir=folder,
        device="cpu",
        progress=False,
        log=log,
        overwrite=True,
    )


def test_csv_tells_of_every_epoch_what_the_history_does_and_of_steps_in_between(tmp_path: Path) -> None:
    history = run(tmp_path, "csv").run.history
    with (tmp_path / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    epochs = [row for row in rows if row["epoch"]]
    assert [float(row["valid_accuracy"]) for row in epochs] == [epoch.valid_accuracy for epoch in history]
    assert [float(row["train_loss"]) for row in epochs] == [epoch.train_loss for epoch in history]
    assert [int(row["step"]) for row in epochs] == [STEPS_IN_AN_EPOCH * number for number in range(1, EPOCHS + 1)]
    steps = [row for row in rows if row["train_loss_step"]]
    assert len(steps) == EPOCHS
    assert all(0 < float(row["learning_rate"]) <= TrainingOptions().learning_rate for row in steps)


def test_a_second_run_in_the_same_folder_logs_beside_the_first(tmp_path: Path) -> None:
    run(tmp_path, "csv")
    run(tmp_path, "csv")
    assert sorted(path.name for path in (tmp_path / "csv").iterdir()) == ["version_0", "version_1"]


def test_tensorboard_tells_the_same(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = run(tmp_path, "tensorboard").run.history
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "version_0"))
    events.Reload()
    rounding = 1e-6  # TensorBoard keeps float32
    logged = [event.value for event in events.Scalars("valid_accuracy")]
    assert logged == pytest.approx([epoch.valid_accuracy for epoch in history], rel=rounding)
    assert {"learning_rate", "train_loss", "train_loss_step", "valid_loss"} <= set(events.Tags()["scalars"])


def test_without_tensorboard_one_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.loggers import tensorboard

    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(tensorboard, name, False)
    with pytest.raises(ExportError, match=r"pip install 'foldserve\[tensorboard\]', or say --log csv"):
        open_log("tensorboard", tmp_path)
