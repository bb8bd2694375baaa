"""Measuring: the statistics of a checkpoint by the method that is asked for, and what was measured already not again.

ema       the moving averages, as trained
exact     front to back over the training set, each BatchNorm behind frozen ones; kept in a file beside the checkpoint
precise   over the training set in one pass, behind layers that normalise with their batch (Wu & Johnson 2021)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from model_export.checkpoint import Checkpoint
from model_export.data import Splits
from model_export.digest import digest_weights
from model_export.errors import StatisticsInvalid
from model_export.inference_copy import inference_copy
from model_export.statistics import (
    BATCH_SIZE,
    CACHE_BYTES,
    Batches,
    FrozenStatistics,
    Instances,
    Tell,
    applied_batchnorms,
    current_processes,
    describe_statistics,
    estimate_statistics,
    moving_average_statistics,
    named_batchnorms,
    precise_statistics,
    sample,
)
from model_export.statistics.record import Subject, read_statistics, record_path, write_statistics
from service.bundle import LayerStatistics

Method = Literal["exact", "precise", "ema"]
Statistics = dict[str, FrozenStatistics]
# Exact statistics leave 1e-7, what float32 rounds, and more where a mean is far above its spread. Wrong ones leave
# percents.
LARGEST_RESIDUAL = 1e-2
ROUNDINGS = 8


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """What one may choose about a measurement; none of it changes exact statistics but `samples`.

    Attributes:
        samples: how many instances to draw of the training set; None for all.
        batch_size: instances in a batch.
        cache_bytes: how much memory may be used to go on from the last wave, instead of from the start.
        device: where to run.
    """

    samples: int | None = None
    batch_size: int = BATCH_SIZE
    cache_bytes: int = CACHE_BYTES
    device: torch.device | str | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network and what its statistics are taken over; `path` is its checkpoint's.

    `calibration` is the training set, shape (N, …), or a stream of it; `batch_size` that of the training.
    `num_instances` says how many there are. `weights_match` says whether the moving averages were kept beside these
    very weights; None if no digest tells.
    """

    path: Path
    network: nn.Module
    calibration: Instances
    num_instances: int
    data_sha256: str
    batch_size: int
    weights_match: bool | None = None


def as_trained(checkpoint: Checkpoint, network: nn.Module, splits: Splits) -> Trained:
    """What a checkpoint, its network and its data are to a measurement."""
    return Trained(
        path=checkpoint.path,
        network=network,
        calibration=splits.calibration,
        num_instances=len(splits.train),
        data_sha256=splits.sha256,
        batch_size=checkpoint.run.options.batch_size,
        weights_match=_match(checkpoint.weights_sha256, network),
    )


def measure_statistics(
    method: Method, trained: Trained, options: MeasuringOptions, *, tell: Tell | None = None
) -> Statistics:
    """Measure every BatchNorm that the network comes to, by qualified name.

    Within a process group all processes must call this, and get the same; the first of them keeps the file.

    Raises:
        StatisticsInvalid: a BatchNorm can not be measured, or its averages are unusable; names it.
        NetworkInvalid: the network can not take the instances.
    """
    instances = sample(trained.calibration, options.samples)
    if method == "ema":
        return moving_average_statistics(trained.network, unreached=unreached_batchnorms(trained.network, instances))
    if method == "precise":
        return precise_statistics(trained.network, instances, batch_size=trained.batch_size, device=options.device)
    return _measure_exact(trained, instances, options, tell)


def unreached_batchnorms(network: nn.Module, instances: Instances) -> tuple[str, ...]:
    """The BatchNorms that forward does not come to in inference mode: nothing is known of them, nothing is needed."""
    copy = inference_copy(network)
    applied = applied_batchnorms(copy, next(iter(Batches(instances, 2, copy)))[:2])
    return tuple(name for name in named_batchnorms(network) if name not in applied)


def check_consistent(network: nn.Module, statistics: Statistics, layers: Iterable[LayerStatistics]) -> None:
    """See that exact statistics are what the network sees behind them.

    Raises:
        StatisticsInvalid: they are not, though they were just measured; says how far they are off.
    """
    for layer in layers:
        off = _excess(network, statistics, layer)
        if off > 0:
            raise StatisticsInvalid(
                f"BatchNorm {layer.batchnorm!r} sees other inputs each time the training set goes through the network "
                f"(off by {off:.1e} standard deviations): it answers at random, keeps something from one batch to the "
                "next, or writes over its input. In inference mode an answer must follow from its instance alone"
            )


def _excess(network: nn.Module, statistics: Statistics, layer: LayerStatistics) -> float:
    """How far the residual is beyond what rounding explains; where a mean is far above its spread that is much."""
    values, batchnorm = statistics[layer.batchnorm], named_batchnorms(network)[layer.batchnorm]
    size = np.abs(values.mean) / np.sqrt(values.var + layer.eps)
    rounding = ROUNDINGS * torch.finfo(batchnorm.running_mean.dtype).eps * float(size.max())  # type: ignore[union-attr]
    return max(layer.residual_mean or 0.0, layer.residual_variance or 0.0) - LARGEST_RESIDUAL - rounding


def _match(weights_sha256: str | None, network: nn.Module) -> bool | None:
    return None if weights_sha256 is None else weights_sha256 == digest_weights(network)


def _measure_exact(trained: Trained, instances: Instances, options: MeasuringOptions, tell: Tell | None) -> Statistics:
    if options.samples is not None:
        return _estimate(trained, instances, options, tell, record=None, known={})
    record = _Record(trained)
    known = record.read()
    statistics = _estimate(trained, instances, options, tell, record=record, known=known)
    if known and not _fit(trained, statistics, instances, options):
        statistics = _estimate(trained, instances, options, tell, record=record, known={})
    record.write(statistics, complete=True)
    return statistics


def _estimate(  # noqa: PLR0913
    trained: Trained,
    instances: Instances,
    options: MeasuringOptions,
    tell: Tell | None,
    *,
    record: _Record | None,
    known: Statistics,
) -> Statistics:
    return estimate_statistics(
        trained.network,
        instances,
        batch_size=options.batch_size,
        device=options.device,
        cache_bytes=options.cache_bytes,
        progress=tell,
        known=known,
        measured=partial(record.write, complete=False) if record else None,
    )


def _fit(trained: Trained, statistics: Statistics, instances: Instances, options: MeasuringOptions) -> bool:
    """Whether what was read from a file is of this very network: its code may be another, with the same weights."""
    layers = describe_statistics(trained.network, statistics, instances, device=options.device)
    return all(_excess(trained.network, statistics, layer) <= 0 for layer in layers)


class _Record:
    """The file of a checkpoint's exact statistics, which all processes read through the first of them."""

    def __init__(self, trained: Trained) -> None:
        self._path = record_path(trained.path)
        self._subject = Subject(weights_sha256=digest_weights(trained.network), data_sha256=trained.data_sha256)
        self._widths = {name: layer.num_features for name, layer in named_batchnorms(trained.network).items()}
        self._processes = current_processes()

    def read(self) -> Statistics:
        """What is known already; the same on all processes, for they must do the same."""
        return self._processes.gather_computed(lambda: read_statistics(self._path, self._subject, self._widths))[0]

    def write(self, statistics: Statistics, *, complete: bool) -> None:
        """Keep what is known so far."""
        if self._processes.rank == 0:
            write_statistics(self._path, self._subject, statistics, complete=complete)
