"""One pass over a training set that measures what is fed to some of a network's BatchNorms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import torch

from model_export.errors import ExportError, NetworkInvalid, StatisticsInvalid
from model_export.statistics.batches import Batches
from model_export.statistics.flow import Hear
from model_export.statistics.holding import channels_where
from model_export.statistics.processes import Processes, current_processes
from model_export.statistics.values import FrozenStatistics, block_statistics, merge

Feed = Callable[[int, torch.Tensor, Hear], None]
Told = Callable[[int], None]
Blocks = dict[int, dict[str, list[FrozenStatistics]]]


def measure(batches: Batches, feed: Feed, told: Told | None = None) -> dict[str, FrozenStatistics]:
    """Measure all that `feed(index, batch, hear)` lets `hear(name, input)` hear, over all batches and processes.

    Args:
        batches: the training set; this process takes its share of them.
        feed: runs a batch.
        told: is told how many batches are done, after each.

    Returns:
        The statistics by name, merged in the order of the batches: the same on every process, however many there are.

    Raises:
        StatisticsInvalid: an input is not finite. What fails on one process fails on all.
        NetworkInvalid: the network failed on a batch.
    """
    processes = current_processes()
    shares = processes.gather_computed(lambda: _measure_own(batches, feed, told, processes))
    return _merge_in_order(shares)


def _measure_own(batches: Batches, feed: Feed, told: Told | None, processes: Processes) -> Blocks:
    blocks: Blocks = {}
    with torch.no_grad():
        for index, batch in batches.numbered(processes.owns):
            blocks[index] = _blocks_of(index, batch, feed)
            if told is not None:
                told(index + 1)
    return blocks


def _blocks_of(index: int, batch: torch.Tensor, feed: Feed) -> dict[str, list[FrozenStatistics]]:
    heard: dict[str, list[FrozenStatistics]] = {}

    def hear(name: str, values: torch.Tensor) -> None:
        block = block_statistics(values)
        _check_finite(name, block)
        heard.setdefault(name, []).append(block)

    try:
        feed(index, batch, hear)
    except ExportError:
        raise
    except Exception as err:
        raise NetworkInvalid(
            f"the network failed on batch {index} of the training set, {len(batch)} instances of shape "
            f"{tuple(batch.shape[1:])}: {type(err).__name__}: {err}"
        ) from err
    return heard


def _merge_in_order(shares: Sequence[Blocks]) -> dict[str, FrozenStatistics]:
    every = {index: heard for share in shares for index, heard in share.items()}
    _check_complete(every)
    in_order: dict[str, list[FrozenStatistics]] = {}
    for index in sorted(every):
        for name, blocks in every[index].items():
            in_order.setdefault(name, []).extend(blocks)
    return {name: reduce(merge, blocks) for name, blocks in in_order.items()}


def _check_complete(every: Blocks) -> None:
    """Each batch was measured once, and fed the same BatchNorms equally often."""
    fed = {index: {name: len(blocks) for name, blocks in heard.items()} for index, heard in every.items()}
    if sorted(fed) != list(range(len(fed))) or any(counts != fed[0] for counts in fed.values()):
        raise StatisticsInvalid(
            "the processes did not measure all batches alike: they must have the same data in the same order, and the "
            "network must take the same way for every instance"
        )


def _check_finite(name: str, block: FrozenStatistics) -> None:
    broken = ~(np.isfinite(block.mean) & np.isfinite(block.var))
    if broken.any():
        raise StatisticsInvalid(
            f"BatchNorm {name!r} is fed NaN or infinity, in channels {channels_where(broken)}: look for such values in "
            "the training set, and in the weights of the layers before it"
        )
