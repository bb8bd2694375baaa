"""The checkpoint: all that is known of a training run, in one file that the trainer resumes from and the export reads.

Format, version 1. The file is Lightning's checkpoint (weights under `state_dict`, prefixed `network.`; the optimiser's
and the loops' state beside them) with one entry of our own, `foldserve`: the JSON form of `Run` below, its
`format_version`, and `weights_sha256`, the digest of the weights that the moving averages were kept with. It is read
with `weights_only=True`: tensors and plain values, no pickled code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from model_export.data import DataSource, Splits, load_splits
from model_export.errors import CheckpointInvalid
from model_export.networks import NetworkSpec, build_network
from model_export.options import TrainingOptions
from service.bundle import Feature

FORMAT_VERSION = 1
ENTRY = "foldserve"
WEIGHTS_PREFIX = "network."


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch's measures. Losses are mean cross-entropies; accuracies are shares from 0 to 1, in inference mode."""

    epoch: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is trained on what, how, and how it went so far. `history` has an entry for each epoch, from 1 on."""

    spec: NetworkSpec
    source: DataSource
    options: TrainingOptions
    data_name: str
    data_sha256: str
    labels: tuple[str, ...]
    features: tuple[Feature, ...] = ()
    history: tuple[Epoch, ...] = ()

    @property
    def best(self) -> Epoch:
        """The last of the epochs with the highest valid accuracy: the schedule ends with the smallest steps.

        Raises:
            ValueError: there was no epoch yet.
        """
        return max(self.history, key=lambda epoch: (epoch.valid_accuracy, epoch.epoch))


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A checkpoint that was read: where from, the run, and the network's weights by name, on the CPU.

    `weights_sha256` is the digest of the weights that the moving averages were kept with, not of those in the file:
    whoever changes the weights afterwards leaves it behind. None in checkpoints of old.
    """

    path: Path
    run: Run
    state_dict: dict[str, Tensor] = field(repr=False)
    weights_sha256: str | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the checkpoint at `path`. No code from the file is run, and none of one's own network.

    Raises:
        CheckpointInvalid: it is not there, is no checkpoint of foldserve, or has another format version.
    """
    content = _load(path)
    entry = content.get(ENTRY)
    if not isinstance(entry, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise CheckpointInvalid(f"{path} was not written by foldserve: expected the entries `{ENTRY}` and `state_dict`")
    if entry.get("format_version") != FORMAT_VERSION:
        raise CheckpointInvalid(
            f"{path} has format version {entry.get('format_version')}, this foldserve reads version {FORMAT_VERSION}: "
            "train again, or use the foldserve that wrote it"
        )
    digest = entry.get("weights_sha256")
    return Checkpoint(
        path=path,
        run=_decode_run(entry, path),
        state_dict=_weights(content["state_dict"]),
        weights_sha256=None if digest is None else str(digest),
    )


def encode_run(run: Run, *, weights_sha256: str) -> dict[str, Any]:
    """The entry that `read_checkpoint` expects, of plain values."""
    return {"format_version": FORMAT_VERSION, "weights_sha256": weights_sha256, **msgspec.to_builtins(run)}


def load_network(checkpoint: Checkpoint) -> nn.Module:
    """The trained network, on the CPU and in training mode: whoever wants inference mode says `.eval()` himself.

    Raises:
        CheckpointInvalid: the weights do not fit the network, which happens when a network of one's own was changed.
        NetworkInvalid: a network of one's own can not be built any more.
    """
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced at once
        network = build_network(checkpoint.run.spec)
    try:
        network.load_state_dict(checkpoint.state_dict)
    except RuntimeError as err:
        raise CheckpointInvalid(
            f"{checkpoint.path}: the weights do not fit {checkpoint.run.spec.options.network}: {err}. "
            "Was the network changed after training? Train again, or restore it"
        ) from err
    return network


def load_splits_of(checkpoint: Checkpoint) -> Splits:
    """The splits that the checkpoint was trained on, loaded again.

    Raises:
        CheckpointInvalid: the data has changed since.
        DataInvalid: the data can not be loaded any more.
    """
    splits = load_splits(checkpoint.run.source)
    if splits.sha256 != checkpoint.run.data_sha256:
        raise CheckpointInvalid(
            f"{checkpoint.path} was trained on other data than {checkpoint.run.source.spec!r} holds now: SHA-256 "
            f"expected {checkpoint.run.data_sha256}, found {splits.sha256}. Restore the data, or train again"
        )
    return splits


def _load(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise CheckpointInvalid(f"there is no checkpoint {path}: expected the best.ckpt that `train` wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # the unpickler raises whatever the bytes lead it to, IndexError say
        raise CheckpointInvalid(
            f"{path} is no checkpoint, or a damaged one: {type(err).__name__} while reading"
        ) from err
    if not isinstance(content, Mapping):
        raise CheckpointInvalid(f"{path} is no checkpoint: expected a mapping, found {type(content).__name__}")
    return content


def _decode_run(entry: Mapping[str, Any], path: Path) -> Run:
    try:
        return msgspec.convert(dict(entry), Run)
    except msgspec.ValidationError as err:
        raise CheckpointInvalid(
            f"{path}: the entry `{ENTRY}` is not of format version {FORMAT_VERSION}: {err}"
        ) from err


def _weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefixed = ((name, value) for name, value in state_dict.items() if name.startswith(WEIGHTS_PREFIX))
    return {name.removeprefix(WEIGHTS_PREFIX): value for name, value in prefixed}
