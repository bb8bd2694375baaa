"""How fast training is: `python -m benchmarks.training`, or `make bench-train`.

The book's network on Fashion-MNIST, 54,000 training images that lie in memory, on one thread: `model_export.train`
beside a loop written by hand in plain PyTorch, with the same network, optimiser, schedule, batches and validation, and
the same look at the test split in the end. The loop writes no checkpoint, can not be resumed and looks after nothing.
Both take turns, round after round; each ratio is of two runs of one round. `model_export.train` is timed as a whole,
Lightning's set-up and two checkpoints in each epoch included; only reading the files is not, for neither.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.computer import describe_computer
from benchmarks.tables import table
from model_export.data import DataSource, Split, Splits, load_splits
from model_export.networks import NetworkOptions, build_network, specify
from model_export.options import TrainingOptions
from model_export.train import train

SOURCE = DataSource(spec="fashion-mnist")
BATCH_SIZES = (64, 256)
EPOCHS = 4  # a run has 30 if nothing else is said; its set-up is part of what is timed
ROUNDS = 5
TARGET = 0.9
PACKAGES = ("foldserve", "torch", "lightning")
RESULTS = Path(__file__).parent / "results" / "training.md"
VALID_BATCH_SIZE = 1000

METHOD = """\
The book's network (mlp, 300 and 100 wide) on Fashion-MNIST in memory, one thread. By hand: plain PyTorch, same network,
AdamW, one-cycle schedule and validation, no checkpoints. foldserve: all of `model_export.train` but reading the files.
Both take turns within a round, and a ratio is of one round."""

FOLDSERVE, BY_HAND = "foldserve", "by hand"


@dataclass(frozen=True, kw_only=True)
class Round:
    """Both runs of one round, in training images a second. Validation's time counts, its images do not."""

    batch_size: int
    foldserve: float
    by_hand: float

    @property
    def ratio(self) -> float:
        """How fast foldserve is, beside the loop."""
        return self.foldserve / self.by_hand


def measure(splits: Splits, *, rounds: int = ROUNDS, epochs: int = EPOCHS) -> tuple[Round, ...]:
    """Measure each batch size in each round, on one thread. A round of one epoch before warms up and is not counted."""
    with _one_thread():
        for batch_size in BATCH_SIZES:
            _measure_round(splits, batch_size, 1, order=0)
        return tuple(
            _measure_round(splits, batch_size, epochs, order=number)
            for number in range(rounds)
            for batch_size in BATCH_SIZES
        )


def _measure_round(splits: Splits, batch_size: int, epochs: int, *, order: int) -> Round:
    """In every other round the other one comes first."""
    options = TrainingOptions(epochs=epochs, batch_size=batch_size)
    runs: dict[str, Callable[[], object]] = {
        FOLDSERVE: lambda: _train(splits, options),
        BY_HAND: lambda: train_by_hand(splits, options),
    }
    num_images = epochs * len(splits.train)
    rates = {name: num_images / _seconds(runs[name]) for name in sorted(runs, reverse=order % 2 == 1)}
    return Round(batch_size=batch_size, foldserve=rates[FOLDSERVE], by_hand=rates[BY_HAND])


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _train(splits: Splits, options: TrainingOptions) -> None:
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder:
        train(SOURCE, NetworkOptions(), options, run_dir=Path(folder), device="cpu", progress=False, splits=splits)


def train_by_hand(splits: Splits, options: TrainingOptions) -> float:
    """The loop as a tutorial has it; returns the accuracy on the test split."""
    torch.manual_seed(options.seed)
    spec = specify(NetworkOptions(), instance_shape=splits.instance_shape, num_outputs=len(splits.labels))
    network = build_network(spec)
    (instances, labels), valid, test = _tensors(splits.train), _tensors(splits.valid), _tensors(splits.test)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    num_steps = options.epochs * len(range(0, len(labels), options.batch_size))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=options.learning_rate, total_steps=num_steps, cycle_momentum=False
    )
    for _ in range(options.epochs):
        network.train()
        for indices in torch.randperm(len(labels)).split(options.batch_size):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss = cross_entropy(network(instances[indices]), labels[indices])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        _accuracy(network, *valid)
    return _accuracy(network, *test)


def _tensors(split: object) -> tuple[Tensor, Tensor]:
    if not isinstance(split, Split):
        raise TypeError("the benchmark's data lies in memory")
    return torch.from_numpy(split.instances), torch.from_numpy(split.labels)


def _accuracy(network: nn.Module, instances: Tensor, labels: Tensor) -> float:
    network.eval()
    with torch.no_grad():
        parts = zip(instances.split(VALID_BATCH_SIZE), labels.split(VALID_BATCH_SIZE), strict=True)  # type: ignore[no-untyped-call]
        num_right = sum(int((network(batch).argmax(dim=1) == right).sum()) for batch, right in parts)
    return num_right / len(labels)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def render(rounds: tuple[Round, ...]) -> str:
    """The report as Markdown."""
    sizes = sorted({one.batch_size for one in rounds})
    rows = [_row(size, [one for one in rounds if one.batch_size == size]) for size in sizes]
    header = ("batch size", "foldserve, images/s", "by hand, images/s", "foldserve / by hand", "lowest", "highest")
    machine = [(name, value) for name, value in describe_computer(PACKAGES).items()]
    return (
        "\n\n".join(
            [
                "# Training, measured",
                _about_the_run(len(rounds) // len(sizes)),
                table(("machine", ""), machine, left=frozenset({0, 1})),
                METHOD,
                table(header, rows, left=frozenset()),
            ]
        )
        + "\n"
    )


def _about_the_run(num_rounds: int) -> str:
    return (
        f"{dt.datetime.now(dt.UTC).date()}, by `python -m benchmarks.training`; medians of {num_rounds} rounds of "
        f"{EPOCHS} epochs each. The target is a ratio of {TARGET}."
    )


def _row(batch_size: int, rounds: list[Round]) -> tuple[str, ...]:
    ratios = [one.ratio for one in rounds]
    foldserve, by_hand = (
        statistics.median(values) for values in zip(*((one.foldserve, one.by_hand) for one in rounds), strict=True)
    )
    numbers = (f"{value:.2f}" for value in (statistics.median(ratios), min(ratios), max(ratios)))
    return (str(batch_size), f"{foldserve:,.0f}", f"{by_hand:,.0f}", *numbers)


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    text = render(measure(load_splits(SOURCE), rounds=arguments.rounds))
    RESULTS.write_text(text)
    Console(width=120).print(text, markup=False, highlight=False)


if __name__ == "__main__":
    main()
