"""The statistics file beside a checkpoint: what was measured, of which weights and data, so that it is done once.

Format, version 1: JSON, one object. `subject` says what the statistics belong to. `layers` maps each BatchNorm to its
`mean`, `var` (float64, as the shortest text that reads back to it) and `num_values`. `complete` is false while a
measurement is under way: the layers are those of the waves that are done, and a later run goes on from there. Whoever
deletes the file loses nothing but time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from model_export.statistics.values import FrozenStatistics

FORMAT_VERSION = 1
LARGEST = 1e300  # nothing that was measured comes near


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What statistics belong to: the digests of the weights and of the data."""

    weights_sha256: str
    data_sha256: str


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """One BatchNorm's statistics, float64, a value for each channel."""

    mean: tuple[float, ...]
    var: tuple[float, ...]
    num_values: int


@dataclass(frozen=True, kw_only=True)
class Record:
    """The file's content."""

    subject: Subject
    complete: bool
    layers: dict[str, LayerRecord] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


def record_path(checkpoint: Path) -> Path:
    """Where the exact statistics of a checkpoint lie: `best.exact.json` beside `best.ckpt`."""
    return checkpoint.with_suffix(".exact.json")


def read_statistics(path: Path, subject: Subject, widths: Mapping[str, int]) -> dict[str, FrozenStatistics]:
    """The statistics in the file at `path`, if they are of this very subject; none otherwise.

    A file of other weights or data, of another format, torn or damaged, is no error: they are measured again. `widths`
    are the channels of each BatchNorm.
    """
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError, RecursionError):
        return {}
    if record.format_version != FORMAT_VERSION or record.subject != subject:
        return {}
    statistics = {name: _statistics(layer) for name, layer in record.layers.items()}
    return statistics if all(_is_sound(values, widths.get(name)) for name, values in statistics.items()) else {}


def write_statistics(
    path: Path, subject: Subject, statistics: Mapping[str, FrozenStatistics], *, complete: bool
) -> None:
    """Write the file, beside it first and then by rename. A folder that takes no files is no error: nothing is kept."""
    layers = {name: _layer(values) for name, values in statistics.items()}
    draft = path.with_suffix(".partial")
    with contextlib.suppress(OSError):
        draft.write_bytes(msgspec.json.encode(Record(subject=subject, complete=complete, layers=layers)))
        draft.replace(path)


def _is_sound(values: FrozenStatistics, width: int | None) -> bool:
    shapes = {values.mean.shape, values.var.shape}
    sizes = np.concatenate([np.abs(values.mean), values.var]) if shapes == {(width,)} else np.array([np.inf])
    return bool((sizes < LARGEST).all() and (values.var >= 0).all() and 0 < values.num_values < 2**63)


def _layer(values: FrozenStatistics) -> LayerRecord:
    return LayerRecord(mean=tuple(values.mean.tolist()), var=tuple(values.var.tolist()), num_values=values.num_values)


def _statistics(layer: LayerRecord) -> FrozenStatistics:
    return FrozenStatistics(mean=np.array(layer.mean), var=np.array(layer.var), num_values=layer.num_values)
