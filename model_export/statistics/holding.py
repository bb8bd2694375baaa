"""What a BatchNorm holds: reading its statistics, giving it others, and the reasons to refuse either."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from model_export.errors import StatisticsInvalid
from model_export.statistics.layers import BatchNorm, named_batchnorms
from model_export.statistics.values import Channels, FrozenStatistics


def held_statistics(name: str, batchnorm: BatchNorm) -> FrozenStatistics:
    """Read what `batchnorm` normalises with at inference, in float64; how many values it came from is not known.

    Raises:
        StatisticsInvalid: it keeps no statistics, or was never run.
    """
    mean, var = _buffers(name, batchnorm)
    return FrozenStatistics(mean=_channels(mean), var=_channels(var), num_values=0)


def hold_statistics(name: str, batchnorm: BatchNorm, statistics: FrozenStatistics) -> None:
    """Let `batchnorm` normalise with `statistics`, rounded once to the dtype of its buffers.

    The buffers are replaced, not written to: whoever else holds the old ones is not affected.

    Raises:
        StatisticsInvalid: it has no place for them, or they are unusable, as they are or once rounded.
    """
    mean, var = _buffers(name, batchnorm)
    check_usable(name, batchnorm, statistics)
    batchnorm.running_mean = torch.tensor(statistics.mean, dtype=mean.dtype, device=mean.device)
    batchnorm.running_var = torch.tensor(statistics.var, dtype=var.dtype, device=var.device)
    _check_survived_rounding(name, batchnorm)


def hold_usable(name: str, batchnorm: BatchNorm) -> None:
    """Let `batchnorm` hold mean 0 and variance 1 if what it holds can not be normalised with.

    Raises:
        StatisticsInvalid: it keeps no statistics, or was never run.
    """
    held = held_statistics(name, batchnorm)
    try:
        check_usable(name, batchnorm, held)
    except StatisticsInvalid:
        fresh = FrozenStatistics(mean=np.zeros_like(held.mean), var=np.ones_like(held.var), num_values=0)
        hold_statistics(name, batchnorm, fresh)


def hold_all(
    network: nn.Module, statistics: Mapping[str, FrozenStatistics], *, unreached: Collection[str] = ()
) -> None:
    """Let every BatchNorm of `network` but the `unreached` hold its `statistics`, in place.

    Raises:
        StatisticsInvalid: they are not one for each BatchNorm, or one of them does not fit or is unusable.
    """
    batchnorms = named_batchnorms(network)
    _check_names(batchnorms.keys() - set(unreached), statistics.keys())
    for name, held in statistics.items():
        hold_statistics(name, batchnorms[name], held)


def check_usable(name: str, batchnorm: BatchNorm, statistics: FrozenStatistics) -> None:
    """Refuse statistics that do not fit `batchnorm`, or that nothing can be normalised with.

    Raises:
        StatisticsInvalid: and says which channels are wrong, and what helps.
    """
    _check_width(name, batchnorm, statistics)
    _check_finite(name, statistics)
    _check_variance(name, batchnorm.eps, statistics.var)


def channels_where(condition: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    """Name the first few of the channels for which `condition` holds."""
    channels = [str(channel) for channel in np.flatnonzero(condition)]
    return ", ".join(channels[:5]) + (", …" if len(channels) > 5 else "")


def _check_names(expected: AbstractSet[str], found: AbstractSet[str]) -> None:
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing or unknown:
        raise StatisticsInvalid(
            f"the statistics are not those of this network: BatchNorms without any: {', '.join(missing) or 'none'}; "
            f"statistics without a BatchNorm: {', '.join(unknown) or 'none'}. Take them from this very network"
        )


def _buffers(name: str, batchnorm: BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    mean, var = batchnorm.running_mean, batchnorm.running_var
    if mean is None or var is None:
        raise StatisticsInvalid(
            f"BatchNorm {name!r} has track_running_stats=False: it normalises with its batch at inference too, so an "
            "answer depends on the other instances. Build it with track_running_stats=True and train again"
        )
    if is_lazy(mean):
        raise StatisticsInvalid(f"BatchNorm {name!r} is lazy and was never run: run the network once, then train it")
    return mean, var


def _channels(buffer: torch.Tensor) -> Channels:
    return buffer.detach().to("cpu", torch.float64, copy=True).numpy()


def _check_width(name: str, batchnorm: BatchNorm, statistics: FrozenStatistics) -> None:
    expected = (batchnorm.num_features,)
    if statistics.mean.shape != expected or statistics.var.shape != expected:
        raise StatisticsInvalid(
            f"BatchNorm {name!r} has {batchnorm.num_features} channels, but its statistics have shapes "
            f"{statistics.mean.shape} and {statistics.var.shape}: take the statistics of this very network"
        )


def _check_finite(name: str, statistics: FrozenStatistics) -> None:
    broken = ~(np.isfinite(statistics.mean) & np.isfinite(statistics.var))
    if broken.any():
        raise StatisticsInvalid(
            f"BatchNorm {name!r} has NaN or infinity for statistics, in channels {channels_where(broken)}: training "
            "diverged or met such values. Train again, with a lower learning rate, on data without them"
        )


def _check_variance(name: str, eps: float, var: Channels) -> None:
    if (var < 0).any():
        raise StatisticsInvalid(
            f"BatchNorm {name!r} has a negative variance, in channels {channels_where(var < 0)}: it was written over, "
            "or computed as E[x²] − E[x]² in too few digits. Estimate exact statistics instead"
        )
    if (var + eps <= 0).any():
        raise StatisticsInvalid(
            f"BatchNorm {name!r} would divide by zero: channels {channels_where(var + eps <= 0)} never vary, and eps "
            f"is {eps}. Set eps to 1e-5 and train again"
        )


def _check_survived_rounding(name: str, batchnorm: BatchNorm) -> None:
    held = held_statistics(name, batchnorm)
    lost = ~(np.isfinite(held.mean) & np.isfinite(held.var))
    if lost.any():
        raise StatisticsInvalid(
            f"the statistics of BatchNorm {name!r} are too large for the dtype of its buffers, in channels "
            f"{channels_where(lost)}: keep this layer in float32, or scale its input down"
        )
