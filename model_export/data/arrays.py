"""A .npz file: for data that some other program has prepared, the shortest way in.

    numpy.savez("mine.npz", instances=..., labels=..., label_names=[...])

`instances` [N, …] are numbers, `labels` [N] words or whole numbers. With `label_names` labels are indices into them.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.data.float32 import as_instances
from model_export.data.splits import Labelled, Split
from model_export.errors import DataInvalid

NEEDED = ("instances", "labels")


def read_arrays(path: Path) -> Labelled:
    """Instances [N, …] as they are in the file, classes by name.

    Raises:
        DataInvalid: an array is missing, pickled, of another length or not of numbers; says which.
    """
    arrays = _load(path)
    instances = as_instances(arrays["instances"], where=f"{path}: instances")
    if instances.ndim < 2 or 0 in instances.shape:
        raise DataInvalid(f"{path}: expected instances of shape (N, …) with two axes at least, found {instances.shape}")
    if arrays["labels"].shape != instances.shape[:1]:
        raise DataInvalid(f"{path}: expected labels of shape {instances.shape[:1]}, found {arrays['labels'].shape}")
    labels, names = _name_labels(path, arrays["labels"], arrays.get("label_names"))
    return Labelled(name=path.stem, everything=Split(instances, labels), labels=names)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*NEEDED, "label_names") if name in file}
            found = ", ".join(file.files) or "nothing"
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as err:
        raise DataInvalid(f"{path}: is not an .npz file of plain arrays ({err}): write it with numpy.savez") from err
    missing = [name for name in NEEDED if name not in arrays]
    if missing:
        raise DataInvalid(f"{path}: expected the arrays `instances` and `labels`, found {found}")
    return arrays


def _name_labels(
    path: Path, labels: NDArray[Any], names: NDArray[Any] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if labels.dtype.kind not in "biuU":
        raise DataInvalid(f"{path}: expected labels that are whole numbers or words, found dtype {labels.dtype}")
    if names is None:
        classes, indices = np.unique(labels, return_inverse=True)
        return indices.astype(np.int64), tuple(str(name) for name in classes)
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names):
        raise DataInvalid(f"{path}: expected label_names to be different words, found {names.dtype} {names.shape}")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(names):
        raise DataInvalid(f"{path}: with label_names, expected labels to be whole numbers from 0 to {len(names) - 1}")
    return labels.astype(np.int64), tuple(str(name) for name in names)
