"""Training in two real processes on the CPU: they learn one network, and end together, well or not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_export.checkpoint import load_network, load_splits_of, read_checkpoint
from model_export.errors import NetworkInvalid
from model_export.options import TrainingOptions
from model_export.run_folder import claim
from model_export.statistics import estimate_statistics
from model_export.training.accuracy import measure_accuracy
from model_export.training.trainer import synchronises
from tests.model_export.runs import small_run

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 180  # seconds; two processes start in ten on an idle core


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have trained together."""
    path = tmp_path_factory.mktemp("together")
    done = run("tests.model_export.together", str(path), "2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return path


@pytest.fixture(scope="module")
def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_both_processes_have_trained_the_same_weights(told: list[dict[str, Any]]) -> None:
    assert told[0]["weights"] == told[1]["weights"]


def test_both_processes_measure_the_exact_statistics_of_one_bit_for_bit(
    folder: Path, told: list[dict[str, Any]]
) -> None:
    checkpoint = read_checkpoint(folder / "run" / "best.ckpt")
    alone = estimate_statistics(load_network(checkpoint), load_splits_of(checkpoint).calibration)
    expected = {name: [one.mean.tolist(), one.var.tolist()] for name, one in alone.items()}
    assert [one["num_processes"] for one in told] == [2, 2]
    assert told[0]["statistics"] == told[1]["statistics"] == expected


def test_two_processes_leave_what_one_leaves_and_learn_as_well(folder: Path, told: list[dict[str, Any]]) -> None:
    assert sorted(path.name for path in (folder / "run").iterdir()) == ["best.ckpt", "last.ckpt"]
    checkpoint = read_checkpoint(folder / "run" / "best.ckpt")
    test = load_splits_of(checkpoint).test
    accuracy = measure_accuracy(load_network(checkpoint).eval(), test)
    assert accuracy == told[0]["test_accuracy"] == told[1]["test_accuracy"]
    assert accuracy > 0.88  # one process comes to 0.91 with this linear network; chance is 0.1
    assert checkpoint.run.options.devices == 2


def test_what_one_process_finds_wrong_ends_both_and_is_said_once(tmp_path: Path) -> None:
    """The lock is seen by the first process alone, when both are there."""
    with claim(tmp_path):
        arguments = ["train", "--device", "cpu", "--devices", "2", "--quiet", "--out", str(tmp_path)]
        done = run("model_export", *arguments)
    assert done.returncode == 1
    assert done.stderr.count("another training writes into") == 1
    assert done.stdout == ""


def test_batches_are_synchronised_on_gpus_unless_told_not_to() -> None:
    assert synchronises(TrainingOptions(devices=2), on_gpu=True)
    assert not synchronises(TrainingOptions(devices=2, sync_batchnorm=False), on_gpu=True)
    assert not synchronises(TrainingOptions(devices=1), on_gpu=True)
    assert not synchronises(TrainingOptions(devices=2), on_gpu=False)
    with pytest.raises(NetworkInvalid, match="SyncBatchNorm computes on GPUs only"):
        synchronises(TrainingOptions(devices=2, sync_batchnorm=True), on_gpu=False)


@pytest.mark.parametrize(
    ("options", "message"), [({"devices": 0}, "--devices is 0"), ({"num_nodes": 0}, "--num-nodes is 0")]
)
def test_fewer_than_one_process_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkInvalid, match=message):
        small_run(tmp_path, **options)


def test_two_processes_leave_one_report_and_one_file_of_exact_statistics(tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--devices", "2", "--epochs", "1", "--quiet", "--out", str(tmp_path)]
    done = run("model_export", "train", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report: ") == 1
    left = ["best.ckpt", "best.exact.json", "last.ckpt", "report.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left
