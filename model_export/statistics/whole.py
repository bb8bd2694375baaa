"""Feeding BatchNorms by running the network as it is, up to the last one that is to be measured: for any code at all.

What depends on what is not known here, so a BatchNorm is taken to depend on all that were applied before it, and each
is measured in a pass of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from model_export.errors import StatisticsInvalid
from model_export.statistics.flow import Hear
from model_export.statistics.layers import listening
from model_export.statistics.waves import Wave, plan_waves


class Whole:
    """A network that feeds one wave of BatchNorms at a time; `applied` are those that a forward pass comes to."""

    def __init__(self, network: nn.Module, applied: Sequence[str]) -> None:
        self.waves = plan_waves({name: set(applied[: _last(applied, name)]) for name in dict.fromkeys(applied)})
        self._network = network
        self._times = Counter(applied)

    def feed(self, wave: Wave, index: int, batch: Tensor, hear: Hear) -> None:
        """Let `hear(name, input)` be called for each application of the wave's BatchNorms; all before it are frozen.

        Raises:
            StatisticsInvalid: the forward pass did not come to all of them.
        """
        del index
        run_until_heard(self._network, batch, {name: self._times[name] for name in wave.names}, hear)


def run_until_heard(network: nn.Module, batch: Tensor, times: Mapping[str, int], hear: Hear) -> None:
    """Run `batch` until the BatchNorms in `times` were applied as often as it says; no layer behind them is run.

    Raises:
        StatisticsInvalid: the forward pass did not come to all of them.
    """
    missing = Counter(times)

    def hear_some(name: str, values: Tensor) -> None:
        if name in times:
            hear(name, values)
            missing[name] -= 1
            if not missing.total():
                raise _AllHeardError

    with torch.no_grad(), listening(network, hear_some), suppress(_AllHeardError):
        network(batch)
    if missing.total():
        raise StatisticsInvalid(
            f"a forward pass did not reach all of the BatchNorms {', '.join(sorted(times))}, which an earlier one did: "
            "the network must take the same way for every instance"
        )


class _AllHeardError(BaseException):
    """Ends a forward pass from within; no `Exception`, so that no `except Exception` in the network stops it."""


def _last(applied: Sequence[str], name: str) -> int:
    return len(applied) - 1 - list(reversed(applied)).index(name)
