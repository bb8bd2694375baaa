"""Small training runs for the tests of this folder, and a network that presses Ctrl-C itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_export.data import DataSource
from model_export.networks import NetworkOptions
from model_export.options import TrainingOptions
from model_export.train import TrainingResult, train

DIGITS = DataSource(spec="digits")
STEPS_IN_AN_EPOCH = math.ceil(1259 / 128)  # training instances of the digits, in batches of `small_run`


def small_run(run_dir: Path, *, network: NetworkOptions | None = None, **options: Any) -> TrainingResult:
    """A run of three epochs, unless `options` say otherwise, in a second."""
    overwrite, at_end = options.pop("overwrite", False), options.pop("at_end", None)
    return train(
        options.pop("source", DIGITS),
        network or NetworkOptions(hidden=(16,), dropout=0.1),
        TrainingOptions(**{"epochs": 3, "batch_size": 128, **options}),
        run_dir=run_dir,
        device="cpu",
        progress=False,
        overwrite=overwrite,
        at_end=at_end,
    )


class Watched(nn.Module):
    """A network that does `in_step[n]` in its n-th training step, counted from 1 since it was built."""

    in_step: dict[int, Callable[[], None]] = {}  # noqa: RUF012  # set by the test, emptied by its fixture

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.BatchNorm1d(num_inputs), nn.Dropout(0.2), nn.Linear(num_inputs, num_outputs)
        )
        self.step = 0

    def forward(self, x: Tensor) -> Tensor:
        self.step += self.training
        if self.training:
            self.in_step.get(self.step, lambda: None)()
        logits: Tensor = self.layers(x)
        return logits


def fixed(instance_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A network that has nothing to learn."""
    return watched(instance_shape, num_outputs).requires_grad_(False)


class Diverging(Watched):
    """A network whose logits are not numbers from the third step on."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits * torch.nan if self.step >= 3 else logits


def watched(instance_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A factory, as users write them."""
    return Watched(math.prod(instance_shape), num_outputs)


def diverging(instance_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Another."""
    return Diverging(math.prod(instance_shape), num_outputs)


def remembered(instance_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """One that remembers what it made: the first in a process is the one that is trained."""
    BUILT.append(watched(instance_shape, num_outputs))
    return BUILT[-1]


BUILT: list[nn.Module] = []
FIXED = NetworkOptions(network="tests.model_export.runs:fixed")
REMEMBERED = NetworkOptions(network="tests.model_export.runs:remembered")
WATCHED = NetworkOptions(network="tests.model_export.runs:watched")
DIVERGING = NetworkOptions(network="tests.model_export.runs:diverging")
