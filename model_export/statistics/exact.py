"""Exact statistics: what each BatchNorm sees in the deployed network, over the whole training set.

Ioffe & Szegedy 2015, algorithm 2, end with the population mean and variance of each layer's input. Those inputs depend
on the layers before, so the order matters: what nothing lies in front of is measured and frozen first, the next wave
behind it, and so on to the last. Everything runs in inference mode, Dropout included. "PreciseBN" (`precise.py`)
measures all in one pass behind *batch*-normalised layers; its result depends on the size and the order of the batches,
this one on neither. Variances are biased, sums are in float64.

A network that can be traced is run in pieces, each pass from where the last one stopped: all waves together cost one
forward pass where memory allows, and one partial pass each where it does not. Whether the pieces give what the network
gives is tried out before, bit for bit; if not, the network is run as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from model_export.errors import StatisticsInvalid
from model_export.inference_copy import inference_copy
from model_export.statistics.batches import BATCH_SIZE, Batches, Instances
from model_export.statistics.holding import held_statistics, hold_statistics, hold_usable
from model_export.statistics.layers import Heard, hear_batchnorms, named_batchnorms
from model_export.statistics.measurement import Feed, measure
from model_export.statistics.processes import current_processes
from model_export.statistics.rehearsal import choose_route
from model_export.statistics.values import FrozenStatistics
from model_export.statistics.waves import Wave

CACHE_BYTES = 2 * 2**30
# A circular wave is measured again until its statistics agree with what it then sees, as far as float32 can tell: a few
# roundings of 6e-8 each.
CIRCULAR_TOLERANCE = 3e-7
ROUNDINGS = 4
MAX_ROUNDS = 100


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a measurement is: batches of a wave, waves of all. A circular wave goes over the batches again."""

    wave: int
    num_waves: int
    batch: int
    num_batches: int


Tell = Callable[[Progress], None]
Statistics = dict[str, FrozenStatistics]


def estimate_statistics(  # noqa: PLR0913 - what to measure, and six keywords about how
    network: nn.Module,
    instances: Instances,
    *,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str | None = None,
    cache_bytes: int = CACHE_BYTES,
    progress: Tell | None = None,
    known: Mapping[str, FrozenStatistics] | None = None,
    measured: Callable[[Statistics], None] | None = None,
) -> Statistics:
    """Measure every BatchNorm that `network` comes to, front to back, over `instances`, shape (N, …).

    Within a process group of torch.distributed every process must call this with the same arguments; each runs its
    share of the batches, and all get the same result, bit for bit that of a single process.

    A BatchNorm that is applied several times is measured over all that it is fed. One that forward does not come to in
    inference mode is not measured.

    Args:
        network: as trained, in any mode; it is left as it is.
        instances: the whole training set, as the network takes it, or a stream of it.
        batch_size: how many at a time; but for the rounding of the activations it makes no difference.
        device: where to run; None: where the network is.
        cache_bytes: how much memory activations may take that the next wave can go on from.
        progress: is told how far it is, after every batch.
        known: the statistics of whole waves, from the front, that were measured before: they are taken as they are.
        measured: is told all statistics so far after every wave, so that they can be `known` another time.

    Returns:
        The statistics by qualified name, in the order in which the network first applies its BatchNorms.

    Raises:
        StatisticsInvalid: a BatchNorm has no statistics of its own to be measured, or one that is applied several
            times has none that agree with themselves; names it.
        NetworkInvalid: the network can not take the instances.
    """
    frozen = inference_copy(network, device=device)
    batches = Batches(instances, batch_size, frozen)
    few, heard = _hear_usable(frozen, batches)
    route = choose_route(frozen, few, heard, cache_bytes=cache_bytes, processes=current_processes())
    statistics: Statistics = {}
    for number, wave in enumerate(route.waves, start=1):
        told = _telling(progress, number, len(route.waves), len(batches))
        statistics |= _take(wave, known or {}) or _measure_wave(frozen, wave, batches, partial(route.feed, wave), told)
        _hold(frozen, wave, statistics)
        if measured is not None:
            measured(statistics)
    return {name: statistics[name] for name in dict.fromkeys(name for name, _ in heard)}


def _hear_usable(frozen: nn.Module, batches: Batches) -> tuple[torch.Tensor, Heard]:
    """A few instances and what each BatchNorm is fed of them.

    None may hold NaN, for that would be all that the ones behind it see.
    """
    found: list[tuple[torch.Tensor, Heard]] = []
    current_processes().gather_computed(lambda: found.append(_hear(frozen, batches)))
    return found[0]


def _hear(frozen: nn.Module, batches: Batches) -> tuple[torch.Tensor, Heard]:
    batch = next(iter(batches))[:2]
    batchnorms = named_batchnorms(frozen)
    for name, batchnorm in batchnorms.items():
        if batchnorm.running_mean is not None:
            hold_usable(name, batchnorm)
    heard = hear_batchnorms(frozen, batch)
    for name in {name for name, _ in heard}:
        held_statistics(name, batchnorms[name])
    return batch, heard


def _take(wave: Wave, known: Mapping[str, FrozenStatistics]) -> Statistics:
    """The wave's statistics if all of them are known, else none."""
    return {name: known[name] for name in wave.names} if known.keys() >= set(wave.names) else {}


def _measure_wave(
    frozen: nn.Module, wave: Wave, batches: Batches, feed: Feed, told: Callable[[int], None] | None
) -> Statistics:
    """Measure a wave; a circular one again and again, from what it holds, until what it holds is what it sees."""
    for _ in range(MAX_ROUNDS):
        found = measure(batches, feed, told)
        change = max((_change(frozen, name, found[name]) for name in wave.circular), default=0.0)
        if change <= CIRCULAR_TOLERANCE:
            return found
        _hold(frozen, wave, found)
    raise StatisticsInvalid(
        f"the BatchNorms {', '.join(sorted(wave.circular))} are applied several times, and their own statistics change "
        f"what they are fed: after {MAX_ROUNDS} passes these still move by {change:.1e} standard deviations. Give each "
        "application a BatchNorm of its own, or freeze the moving averages (ema)"
    )


def _change(frozen: nn.Module, name: str, found: FrozenStatistics) -> float:
    """How far `found` is from what the BatchNorm holds, in standard deviations, at the worst channel.

    What it holds is rounded to the dtype of its buffers, so a few roundings are no change.
    """
    batchnorm = named_batchnorms(frozen)[name]
    held = held_statistics(name, batchnorm)
    rounding = ROUNDINGS * torch.finfo(batchnorm.running_mean.dtype).eps  # type: ignore[union-attr]  # it holds some
    mean = np.abs(found.mean - held.mean) - rounding * (np.abs(found.mean) + np.sqrt(found.var))
    var = np.abs(found.var - held.var) - rounding * found.var
    return float(max((mean / np.sqrt(found.var + batchnorm.eps)).max(), (var / (found.var + batchnorm.eps)).max()))


def _hold(frozen: nn.Module, wave: Wave, statistics: Mapping[str, FrozenStatistics]) -> None:
    batchnorms = named_batchnorms(frozen)
    for name in wave.names:
        hold_statistics(name, batchnorms[name], statistics[name])


def _telling(tell: Tell | None, wave: int, num_waves: int, num_batches: int) -> Callable[[int], None] | None:
    if tell is None:
        return None
    return lambda done: tell(Progress(wave=wave, num_waves=num_waves, batch=done, num_batches=num_batches))
