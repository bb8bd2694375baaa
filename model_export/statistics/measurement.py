"""One pass over a training set that measures what is fed to some of a network's BatchNorms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import nn

from model_export.errors import StatisticsInvalid
from model_export.statistics.holding import channels_where
from model_export.statistics.layers import listening
from model_export.statistics.values import FrozenStatistics, block_statistics, merge


def measure_inputs(
    network: nn.Module, applications: Sequence[str], batches: Iterable[torch.Tensor]
) -> dict[str, FrozenStatistics]:
    """Measure the inputs of the BatchNorms that are named; of each batch, no layer behind the last of them is run.

    A BatchNorm is named as often as one forward pass applies it; all that it is fed is measured together.

    Raises:
        StatisticsInvalid: an input is not finite, or a forward pass did not reach one of the BatchNorms.
    """
    measurement = _Measurement(applications)
    with torch.no_grad(), listening(network, measurement.hear):
        for batch in batches:
            measurement.run(network, batch)
    return measurement.statistics


class _AllHeardError(BaseException):
    """Ends a forward pass from within; no `Exception`, so that no `except Exception` in the network stops it."""


class _Measurement:
    """The statistics so far, and how many inputs of the current batch are still to come."""

    def __init__(self, applications: Sequence[str]) -> None:
        self.statistics: dict[str, FrozenStatistics] = {}
        self._applications = applications
        self._num_missing = 0

    def run(self, network: nn.Module, batch: torch.Tensor) -> None:
        self._num_missing = len(self._applications)
        with suppress(_AllHeardError):
            network(batch)
        if self._num_missing:
            raise StatisticsInvalid(
                f"a forward pass did not reach all of the BatchNorms {', '.join(sorted(set(self._applications)))}, "
                "which an earlier one did: the network must take the same way for every instance"
            )

    def hear(self, name: str, values: torch.Tensor) -> None:
        if name not in self._applications:
            return
        block = block_statistics(values)
        _check_finite(name, block)
        self.statistics[name] = merge(self.statistics[name], block) if name in self.statistics else block
        self._num_missing -= 1
        if not self._num_missing:
            raise _AllHeardError


def _check_finite(name: str, block: FrozenStatistics) -> None:
    broken = ~(np.isfinite(block.mean) & np.isfinite(block.var))
    if broken.any():
        raise StatisticsInvalid(
            f"BatchNorm {name!r} is fed NaN or infinity, in channels {channels_where(broken)}: look for such values in "
            "the training set, and in the weights of the layers before it"
        )
