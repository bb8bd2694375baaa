"""How a trained network answers with frozen statistics, and with those of the batch that an instance is in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model_export.data import Split
from model_export.freeze import freeze
from model_export.statistics import estimate_statistics, moving_average_statistics
from model_export.study.data import Data
from model_export.study.replacing import BatchStatistics, replace_batchnorms
from model_export.study.trials import Reading

BATCH_SIZES = (1, 2, 8, 64)
NUM_READ = 2000  # test instances: thousands of batches of one take their time
EVALUATION_BATCH_SIZE = 1000  # changes nothing but memory and speed


def measure_accuracy(network: nn.Module, split: Split, batch_size: int = EVALUATION_BATCH_SIZE) -> float | None:
    """The share of `split` that `network` puts into the right class; None where a logit is no finite number."""
    num_right = 0
    instances, labels = torch.from_numpy(split.instances), torch.from_numpy(split.labels)
    with torch.inference_mode():
        for some, right in zip(torch.split(instances, batch_size), torch.split(labels, batch_size), strict=True):
            logits = network(some)
            if not torch.isfinite(logits).all():
                return None
            num_right += int((logits.argmax(dim=1) == right).sum())
    return num_right / len(split)


def exactly_frozen(network: nn.Module, split: Split) -> nn.Module:
    """`network` in inference mode with exact statistics over `split`.

    Raises:
        StatisticsInvalid: its activations or weights are no finite numbers any more.
    """
    return freeze(network, estimate_statistics(network, split.instances))


def read_all(network: nn.Module, data: Data) -> tuple[Reading, ...]:
    """Ask the trained `network` about test instances in all ways that there are; NaN counts as a wrong answer."""
    split = Split(data.test.instances[:NUM_READ], data.test.labels[:NUM_READ])
    by_batch = replace_batchnorms(network, BatchStatistics).eval()
    readings = [
        _read("exact", 0, exactly_frozen(network, data.train), split),
        _read("ema", 0, freeze(network, moving_average_statistics(network)), split),
    ]
    for source, order in _orders(split):
        readings += [_read(source, size, by_batch, split.take(order)) for size in BATCH_SIZES]
    return tuple(readings)


def _read(source: str, batch_size: int, network: nn.Module, split: Split) -> Reading:
    accuracy = measure_accuracy(network, split, batch_size or EVALUATION_BATCH_SIZE)
    return Reading(source=source, batch_size=batch_size, accuracy=accuracy or 0.0)


def _orders(split: Split) -> Iterator[tuple[str, NDArray[np.int64]]]:
    yield "shuffled", np.random.default_rng(0).permutation(len(split))
    yield "sorted", np.argsort(split.labels, kind="stable")
