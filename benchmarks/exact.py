"""What exact statistics cost: `python -m benchmarks.exact`, or `make bench-exact`.

The floor is one forward pass over the same instances, with nothing measured. Beside it: exact statistics as they are
measured (pieces of the network, each pass from where the last one stopped), without memory for that, and the plain way
of one partial pass for each BatchNorm; and precise statistics, which take one pass behind batch-normalised layers.
All take turns within each round, on one thread.
"""

from __future__ import annotations

import datetime as dt
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.computer import describe_computer
from benchmarks.tables import table
from model_export.statistics import estimate_statistics, named_batchnorms, precise_statistics
from model_export.statistics.whole import Whole

ROUNDS = 5
BATCH_SIZE = 256
PACKAGES = ("foldserve", "torch")
RESULTS = Path(__file__).parent / "results" / "exact.md"
COLUMNS = ("network", "BatchNorms", "one pass, ms", "in pieces", "without memory", "one by one", "precise")


@dataclass(frozen=True)
class Subject:
    """A network, and the instances that its statistics are measured over."""

    name: str
    network: nn.Module
    instances: Tensor


@dataclass(frozen=True)
class Cost:
    """Median seconds of one forward pass, and of each way in multiples of it (medians of the rounds' ratios)."""

    subject: Subject
    seconds: float
    ratios: dict[str, float]


class Residual(nn.Module):
    """conv, BN, ReLU, conv, BN, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """As above."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + x)


def deep(layers: int = 20, width: int = 100) -> nn.Module:
    """Dense, BN, tanh, over and over."""
    hidden = [part for _ in range(layers) for part in (nn.Linear(width, width), nn.BatchNorm1d(width), nn.Tanh())]
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, width), *hidden, nn.Linear(width, 10))


def residual(blocks: int = 8, channels: int = 16) -> nn.Module:
    """A residual network for small images."""
    stem = (nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    return nn.Sequential(*stem, *(Residual(channels) for _ in range(blocks)), *head)


def subjects() -> tuple[Subject, ...]:
    """Two networks on random images of 28 × 28."""
    torch.manual_seed(0)
    images = torch.randn(10_000, 1, 28, 28)
    return (
        Subject("20 dense layers of 100", deep(), images),
        Subject("8 residual blocks of 16 channels", residual(), images[:2000]),
    )


@torch.inference_mode()
def forward(subject: Subject) -> None:
    """The floor."""
    for batch in torch.split(subject.instances, BATCH_SIZE):
        subject.network(batch)


def one_by_one(subject: Subject) -> None:
    """Each BatchNorm in a partial pass of its own, from the input on."""
    with mock.patch(
        "model_export.statistics.exact.choose_route",
        lambda network, _, heard, **__: Whole(network, [name for name, _ in heard]),
    ):
        estimate_statistics(subject.network, subject.instances, batch_size=BATCH_SIZE)


WAYS: dict[str, Callable[[Subject], object]] = {
    "in pieces": lambda subject: estimate_statistics(subject.network, subject.instances, batch_size=BATCH_SIZE),
    "without memory": lambda subject: estimate_statistics(
        subject.network, subject.instances, batch_size=BATCH_SIZE, cache_bytes=0
    ),
    "one by one": one_by_one,
    "precise": lambda subject: precise_statistics(subject.network, subject.instances, batch_size=BATCH_SIZE),
}


def measure(subject: Subject, rounds: int = ROUNDS) -> Cost:
    """Every way in every round, the floor first."""
    subject.network.eval()
    floor: list[float] = []
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    forward(subject)  # warms up
    for _ in range(rounds):
        floor.append(seconds(forward, subject))
        for way, run in WAYS.items():
            ratios[way].append(seconds(run, subject) / floor[-1])
    return Cost(subject, statistics.median(floor), {way: statistics.median(found) for way, found in ratios.items()})


def seconds(run: Callable[[Subject], object], subject: Subject) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    run(subject)
    return time.perf_counter() - start


def render(costs: tuple[Cost, ...], computer: dict[str, str]) -> str:
    """The report, as Markdown."""
    rows = [
        (
            cost.subject.name,
            str(len(named_batchnorms(cost.subject.network))),
            f"{1e3 * cost.seconds:.0f}",
            *(f"{ratio:.1f}×" for ratio in cost.ratios.values()),
        )
        for cost in costs
    ]
    method = (__doc__ or "").partition("\n\n")[2].strip()
    return (
        "\n\n".join(
            [
                "# Exact statistics, measured",
                (
                    f"{dt.datetime.now(dt.UTC).date()}, by `python -m benchmarks.exact`: medians of {ROUNDS} rounds, "
                    "in multiples of one forward pass over the same instances."
                ),
                table(("machine", ""), list(computer.items()), left=frozenset({0, 1})),
                method,
                table(COLUMNS, rows),
            ]
        )
        + "\n"
    )


def main() -> None:
    """Measure, show, write."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        text = render(tuple(measure(subject) for subject in subjects()), describe_computer(PACKAGES))
    finally:
        torch.set_num_threads(before)
    Console().print(text, markup=False)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
