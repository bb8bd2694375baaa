"""Data of one's own: `--data package.module:name`, a LightningDataModule, found as a network of one's own is.

`name` is a subclass of LightningDataModule, called without arguments, or a function that returns an instance. What is
used of it:

    prepare_data(), setup("fit"), setup("test")   called once each
    train_dataloader()        trains, as it is: its sampler, its augmentation, its workers
    val_dataloader()          chooses the best epoch
    test_dataloader()         is looked at once, and verifies the bundle
    calibration_dataloader()  if there is one, what statistics are measured over: the training set without augmentation
    labels                    if there is such an attribute, the classes' names, in the order of their numbers

Batches are (instances, labels). The valid and the test split are held in memory; the training split never is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as lightning
import msgspec
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden

from model_export.data.draws import Draws
from model_export.data.labelled_batch import check_batch
from model_export.data.splits import DataSource, Split, Splits, digest_splits
from model_export.data.stream import CALIBRATION_SEED, CalibrationStream, StreamedSplit, told
from model_export.errors import DataInvalid
from model_export.ones_own import current_folder_importable, find_ones_own

NEEDED = {
    "train_dataloader": "trains",
    "val_dataloader": "chooses the best epoch",
    "test_dataloader": "is held out, to test and to verify with",
}
SEED_OF_SETUP = 0


def read_ones_own(source: DataSource) -> Splits:
    """The splits of the data module that `source` names; the training split is a stream.

    `sha256` covers the instances and labels of the valid and the test split, the classes' names, and the number of
    training instances where that is known without a pass. It can not see whether the training instances themselves
    have changed: that would take a pass over all of them at every start.

    Raises:
        DataInvalid: there is no such module, a loader is missing, or its code failed; says which.
    """
    name = source.spec
    draws = Draws(SEED_OF_SETUP)  # a split that is drawn at random is drawn alike each time
    with draws.taken():
        module = _make(name)
    _check_loaders(name, module)
    _set_up(name, module, draws)
    valid, test = (_materialise(name, module, kind) for kind in ("val_dataloader", "test_dataloader"))
    _check_same_shape(name, valid, test)
    train = _stream(name, module)
    labels = _labels(name, module, valid, test)
    return Splits(
        name=name.partition(":")[2],
        train=train,
        valid=valid,
        test=test,
        labels=labels,
        sha256=_digest(train, valid, test, labels),
    )


def _make(name: str) -> lightning.LightningDataModule:
    with current_folder_importable():
        make = find_ones_own(name, flag="--data", kind="class or function", error=DataInvalid)
    with told(f"{name}()"):
        module = make()
    if not isinstance(module, lightning.LightningDataModule):
        raise DataInvalid(
            f"{name}: expected a subclass of LightningDataModule, or a function that returns an instance of one, found "
            f"{type(module).__name__}"
        )
    return module


def _check_loaders(name: str, module: lightning.LightningDataModule) -> None:
    for method, purpose in NEEDED.items():
        if not is_overridden(method, module, lightning.LightningDataModule):
            raise DataInvalid(f"{name} has no {method}(): define it, for what it gives {purpose}")


def _set_up(name: str, module: lightning.LightningDataModule, draws: Draws) -> None:
    with draws.taken(), _one_at_a_time(module), told(f"{name}.prepare_data()"):
        module.prepare_data()
    for stage in ("fit", "test"):
        with draws.taken(), told(f"{name}.setup({stage!r})"):
            module.setup(stage)


@contextmanager
def _one_at_a_time(module: lightning.LightningDataModule) -> Iterator[None]:
    """Of several processes on one machine that train together, one prepares after the other; only the first downloads.

    The lock is on the user's own file, which all of them have open: nothing has to be left anywhere for it.
    """
    path = getattr(sys.modules.get(type(module).__module__), "__file__", None)
    if path is None:
        yield
        return
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _materialise(name: str, module: lightning.LightningDataModule, method: str) -> Split:
    """All that a loader gives, in memory."""
    where = f"{name}.{method}()"
    with Draws(CALIBRATION_SEED).taken(), told(where):
        loader = getattr(module, method)()
        batches = [check_batch(batch, where=where) for batch in _single(loader, where)]
    if not sum(len(labels) for _, labels in batches):
        raise DataInvalid(f"{where}: gave no instances")
    shapes = sorted({tuple(instances.shape[1:]) for instances, _ in batches})
    if len(shapes) > 1:
        raise DataInvalid(f"{where}: expected instances of one shape, found {', '.join(map(str, shapes))}")
    instances, labels = (torch.cat(parts).contiguous().numpy() for parts in zip(*batches, strict=True))
    return Split(instances, labels)


def _single(loader: Any, where: str) -> Any:
    if isinstance(loader, dict) or (isinstance(loader, list | tuple) and loader and hasattr(loader[0], "dataset")):
        raise DataInvalid(f"{where}: expected one loader, found {len(loader)} in a {type(loader).__name__}")
    return loader


def _check_same_shape(name: str, valid: Split, test: Split) -> None:
    if valid.instances.shape[1:] != test.instances.shape[1:]:
        raise DataInvalid(
            f"{name}: expected valid and test instances of one shape, found {valid.instances.shape[1:]} and "
            f"{test.instances.shape[1:]}"
        )


def _stream(name: str, module: lightning.LightningDataModule) -> StreamedSplit:
    """The training split. Its loaders are made when they are needed, each time anew."""
    has_own = callable(getattr(module, "calibration_dataloader", None))
    method = "calibration_dataloader" if has_own else "train_dataloader"
    return StreamedSplit(
        name=f"{name}.train_dataloader()",
        make_loader=module.train_dataloader,
        calibration=CalibrationStream(name=f"{name}.{method}()", make_loader=getattr(module, method)),
    )


def _labels(name: str, module: lightning.LightningDataModule, valid: Split, test: Split) -> tuple[str, ...]:
    largest = int(max(valid.labels.max(), test.labels.max()))
    given = getattr(module, "labels", None)
    labels = tuple(map(str, range(largest + 1))) if given is None else _words(name, given)
    if len(labels) < 2:
        raise DataInvalid(f"{name}: expected two classes at least, found {', '.join(labels) or 'none'}")
    if largest >= len(labels):
        raise DataInvalid(f"{name}.labels names {len(labels)} classes, and there is a label {largest}: name all")
    return labels


def _words(name: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(word, str) for word in given):
        raise DataInvalid(f"{name}.labels: expected a sequence of words, one for each class, found {given!r}")
    if len(set(given)) != len(given):
        raise DataInvalid(f"{name}.labels: expected different words, found {', '.join(given)}")
    return tuple(given)


def _digest(train: StreamedSplit, valid: Split, test: Split, labels: tuple[str, ...]) -> str:
    known = msgspec.json.encode(train.calibration.known_num_instances)
    return hashlib.sha256(known + digest_splits((valid, test), labels, ()).encode()).hexdigest()
