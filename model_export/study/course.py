"""One training run with its measurements: plain SGD on minibatches, as Ioffe & Szegedy 2015 did it.

The loop is plain PyTorch. A study is hundreds of runs of a few seconds whose gradients are looked into; Lightning's
start alone would take as long as some of them, and its hooks would stand between us and the gradients.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from model_export.data import Split
from model_export.errors import StatisticsInvalid
from model_export.statistics import named_batchnorms
from model_export.study.data import Data
from model_export.study.networks import build_trial_network, weights
from model_export.study.readings import exactly_frozen, measure_accuracy, read_all
from model_export.study.trials import Outcome, Point, Trial

FIRST_LOOK = 4  # and one at the first step


@dataclass(frozen=True, kw_only=True)
class _Course:
    curve: tuple[Point, ...]
    diverged_in: int | None


def run_trial(trial: Trial, data: Data, batch_size: int) -> Outcome:
    """Train the trial's network and look at it on the way; what diverges ends early, and answers with chance.

    Raises:
        NetworkInvalid: the network can not be built or run.
    """
    start = time.process_time()
    network = build_trial_network(trial, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)  # for dropout in one's own network
        course = _train(network, trial, data, batch_size)
    valid, test = (None, None) if course.diverged_in else _final_accuracies(network, data)
    is_sound = valid is not None and test is not None
    return Outcome(
        trial=trial,
        diverged_in=None if is_sound else course.diverged_in or trial.steps,
        curve=course.curve,
        valid_accuracy=data.chance if valid is None else valid,
        test_accuracy=data.chance if test is None else test,
        readings=read_all(network, data) if is_sound and trial.read_batches else (),
        cpu_seconds=time.process_time() - start,
    )


def minibatches(num_instances: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Indices, batch after batch without end; each epoch in an order of its own, and what is left of it is dropped.

    All batches have the same size, so that no BatchNorm is worse off for a small one.
    """
    generator = torch.Generator().manual_seed(seed + 2**32)  # other numbers than the weights'
    size = min(batch_size, num_instances)
    while True:
        order = torch.randperm(num_instances, generator=generator)
        yield from torch.split(order[: num_instances // size * size], size)


def looks(steps: int, num_looks: int) -> tuple[int, ...]:
    """The steps after which a run is looked at: the first, the last, and some about evenly spaced in logarithm."""
    spaced = np.geomspace(min(FIRST_LOOK, steps), steps, num_looks).round().astype(int)
    return tuple(sorted({1, *spaced.tolist()}))


def gradient_norms(network: nn.Module) -> tuple[float, float]:
    """Frobenius norms, in float64, of the gradients that the first and the last layer's weights hold."""
    gradients = [weight.grad for weight in weights(network) if weight.grad is not None]
    first, last = (float(torch.linalg.vector_norm(gradient.double())) for gradient in (gradients[0], gradients[-1]))
    return first, last


def _train(network: nn.Module, trial: Trial, data: Data, batch_size: int) -> _Course:
    optimizer = torch.optim.SGD(network.parameters(), lr=trial.learning_rate)
    instances, labels = torch.from_numpy(data.train.instances), torch.from_numpy(data.train.labels)
    curve: list[Point] = []
    looked_at = set(looks(trial.steps, trial.looks))
    batches = islice(minibatches(len(data.train), batch_size, trial.seed), trial.steps)
    for step, batch in enumerate(batches, start=1):
        loss = _step(network, optimizer, instances[batch], labels[batch])
        if not math.isfinite(loss):
            return _Course(curve=tuple(curve), diverged_in=step)
        if step in looked_at:
            point = _look(network, step, data)
            if point is None:
                return _Course(curve=tuple(curve), diverged_in=step)
            curve.append(point)
    return _Course(curve=tuple(curve), diverged_in=None)


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, instances: Tensor, labels: Tensor) -> float:
    """One step of SGD; the gradients stay for those who look."""
    optimizer.zero_grad()
    loss = cross_entropy(network(instances), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def _look(network: nn.Module, step: int, data: Data) -> Point | None:
    """None where something is no finite number."""
    first, last = gradient_norms(network)
    accuracy = _accuracy(network, data.calibration, data.valid)
    network.train()
    if accuracy is None or not (math.isfinite(first) and math.isfinite(last)):
        return None
    return Point(step=step, valid_accuracy=accuracy, first_gradient=first, last_gradient=last)


def _final_accuracies(network: nn.Module, data: Data) -> tuple[float | None, float | None]:
    frozen = _frozen(network, data.train)
    if frozen is None:
        return None, None
    return measure_accuracy(frozen, data.valid), measure_accuracy(frozen, data.test)


def _accuracy(network: nn.Module, calibration: Split, held_out: Split) -> float | None:
    frozen = _frozen(network, calibration)
    return None if frozen is None else measure_accuracy(frozen, held_out)


def _frozen(network: nn.Module, calibration: Split) -> nn.Module | None:
    """In inference mode, with exact statistics where there are BatchNorms; None where they are no finite numbers."""
    if not named_batchnorms(network):
        return network.eval()
    try:
        return exactly_frozen(network, calibration)
    except StatisticsInvalid:
        return None
