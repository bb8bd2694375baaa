"""The contract between the rooms: a bundle that one made is served by the other, and the answers are the network's.

Everything runs as a user runs it: the commands of `python -m model_export`, a real server process, HTTP.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from model_export.checkpoint import load_network, load_splits_of, read_checkpoint
from model_export.data import instance_as_json
from model_export.freeze import freeze
from model_export.statistics import estimate_statistics
from service.bundle import read_bundle
from tests.service.running_server import running_server

TOLERANCE = 1e-5  # the bundle's own for scores: float32 against float64


def _model_export(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_export", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Breast cancer as a CSV file with words for classes and one made-up categorical column; trained and exported."""
    folder = tmp_path_factory.mktemp("contract")
    data = load_breast_cancer(as_frame=True)
    frame: pd.DataFrame = data.frame
    frame["diagnosis"] = [str(data.target_names[index]) for index in frame.pop("target")]
    frame["ward"] = [("north", "south", "west")[index % 3] for index in range(len(frame))]
    frame.to_csv(folder / "cancer.csv", index=False)
    trained = _model_export(
        "train", "--data", str(folder / "cancer.csv"), "--target", "diagnosis", "--epochs", "15", "--quiet", cwd=folder
    )
    assert trained.returncode == 0, trained.stderr
    exported = _model_export("export", "runs/cancer/best.ckpt", "--out", "models/cancer/1", cwd=folder)
    assert exported.returncode == 0, exported.stderr
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with running_server("--models", str(folder / "models"), "--device", "cpu") as server, server.client() as client:
        yield client


def _held_out(folder: Path) -> tuple[list[dict[str, object]], np.ndarray]:
    """Held-out rows as objects of named features, and the scores of the unfolded network for them, in float64."""
    checkpoint = read_checkpoint(folder / "runs" / "cancer" / "best.ckpt")
    splits, network = load_splits_of(checkpoint), load_network(checkpoint)
    frozen = freeze(network, estimate_statistics(network, splits.train.instances)).double()
    with torch.inference_mode():
        scores = frozen(torch.from_numpy(splits.test.instances).double()).softmax(dim=1).numpy()
    names = [feature.name for feature in splits.features]
    rows = [instance_as_json(instance, splits.features) for instance in splits.test.instances]
    return [dict(zip(names, row, strict=True)) for row in rows], scores


def test_named_features_are_answered_as_the_network_answers(client: httpx.Client, folder: Path) -> None:
    rows, scores = _held_out(folder)
    labels = read_bundle(folder / "models" / "cancer" / "1").manifest.signature.labels
    for row, expected in zip(rows, scores, strict=True):
        answer = client.post("/predict", json={"instance": row}).json()["prediction"]
        assert np.abs(np.array(answer["scores"]) - expected).max() <= TOLERANCE
        assert answer["label"] == labels[int(np.argmax(answer["scores"]))]


def test_names_may_come_in_any_order_and_a_plain_list_is_the_same_instance(client: httpx.Client, folder: Path) -> None:
    row = _held_out(folder)[0][0]
    forms = (row, dict(reversed(row.items())), list(row.values()))
    answers = [client.post("/predict", json={"instance": form}).content for form in forms]
    assert answers[0] == answers[1] == answers[2]


def test_the_example_of_the_model_can_be_posted_as_it_is(client: httpx.Client) -> None:
    example = client.get("/model/example").content
    assert client.post("/predict", content=example).status_code == 200


def test_a_wrong_feature_is_named_and_the_right_one_suggested(client: httpx.Client, folder: Path) -> None:
    row = _held_out(folder)[0][0]
    row["mean radios"] = row.pop("mean radius")
    answer = client.post("/predict", json={"instance": row})
    assert answer.status_code == 422
    assert "mean radius" in answer.json()["error"]


def test_training_twice_gives_the_same_bundle(folder: Path) -> None:
    """Same data, same seed, same machine: the same bytes of weights."""
    flags = (
        "--data",
        str(folder / "cancer.csv"),
        "--target",
        "diagnosis",
        "--epochs",
        "15",
        "--quiet",
        "--out",
        "runs/again",
    )
    assert _model_export("train", *flags, cwd=folder).returncode == 0
    exported = _model_export("export", "runs/again/best.ckpt", "--out", "models2/cancer/1", cwd=folder)
    assert exported.returncode == 0, exported.stderr
    first, second = (folder / root / "cancer" / "1" / "model.onnx" for root in ("models", "models2"))
    assert first.read_bytes() == second.read_bytes()
