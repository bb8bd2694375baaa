"""Prepared arrays from an .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_export.data import DataSource, Splits, load_splits
from model_export.errors import DataInvalid

INSTANCES = np.arange(80).reshape(20, 2, 2)
LABELS = np.array([0, 1] * 10)


def load(folder: Path, **arrays: Any) -> Splits:
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return load_splits(DataSource(spec=str(path)))


def test_instances_keep_their_shape_and_classes_their_names(tmp_path: Path) -> None:
    splits = load(tmp_path, instances=INSTANCES, labels=LABELS, label_names=["no", "yes"])
    assert splits.instance_shape == (2, 2)
    assert splits.labels == ("no", "yes")


def test_labels_without_names_name_themselves(tmp_path: Path) -> None:
    assert load(tmp_path, instances=INSTANCES, labels=np.array(["b", "a"] * 10)).labels == ("a", "b")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": INSTANCES, "labels": LABELS}, "expected the arrays `instances` and `labels`, found x, labels"),
        ({"instances": INSTANCES, "labels": LABELS[:-1]}, r"labels of shape \(20,\), found \(19,\)"),
        ({"instances": LABELS, "labels": LABELS}, r"shape \(N, …\) with two axes at least, found \(20,\)"),
        ({"instances": INSTANCES, "labels": LABELS * 0.5}, "whole numbers or words, found dtype float64"),
        ({"instances": INSTANCES, "labels": LABELS, "label_names": ["no"]}, "whole numbers from 0 to 0"),
        ({"instances": INSTANCES, "labels": LABELS, "label_names": ["no", "no"]}, "different words"),
        ({"instances": INSTANCES * np.nan, "labels": LABELS}, "80 values are missing or infinite"),
        ({"instances": INSTANCES.astype(object), "labels": LABELS}, "allow_pickle=False"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: Any, message: str) -> None:
    with pytest.raises(DataInvalid, match=rf"mine\.npz.*{message}"):
        load(tmp_path, **arrays)


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(DataInvalid, match=r"mine\.npz: is not an \.npz file"):
        load_splits(DataSource(spec=str(path)))
