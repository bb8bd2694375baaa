"""`train`: turns the words of the command line into data, network and options, trains, and says what to do next."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from model_export.commands.choices import choose
from model_export.commands.present import make_console
from model_export.data import DataSource
from model_export.errors import NetworkInvalid
from model_export.networks import NetworkOptions
from model_export.options import Precision, TrainingOptions
from model_export.train import Device, TrainingResult, resume, train
from service.bundle import NAME_PATTERN

LONGEST_NAME = 64


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """The command line's flags, by name, as they were typed."""

    data: str
    target: str | None
    ignore: tuple[str, ...]
    directory: str | None
    network: str
    placement: str | None
    activation: str | None
    hidden: str | None
    dropout: float | None
    momentum: float | None
    eps: float | None
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int | None
    seed: int
    device: str
    precision: str
    resume: Path | None
    out: Path | None
    overwrite: bool
    quiet: bool


def run_train(command: TrainCommand, console: Console) -> TrainingResult:
    """Train, or go on training, and show what came of it.

    Raises:
        ExportError: a flag's value is not allowed, or a room refused.
    """
    device = choose("--device", command.device, Device)
    if command.resume is not None:
        result = resume(command.resume, device=device, progress=not command.quiet)
    else:
        result = train(
            _source(command),
            _network(command),
            _options(command),
            run_dir=command.out or Path("runs") / Path(command.data).resolve().stem,
            device=device,
            progress=not command.quiet,
            overwrite=command.overwrite,
            warn=_warn,
        )
    show_result(result, console)
    return result


def show_result(result: TrainingResult, console: Console) -> None:
    """The best epoch, the held-out accuracy, and the next command."""
    best, name = result.run.best, model_name(Path(result.run.source.spec).resolve().stem)
    console.print(
        f"Trained {result.run.spec.options.network} on {result.run.data_name} in {result.seconds:.1f} s: "
        f"test accuracy {result.test_accuracy:.4f}, best epoch {best.epoch} of {len(result.run.history)}",
        soft_wrap=True,
        markup=False,
    )
    console.print("Make a bundle of it:", soft_wrap=True)
    path = shlex.quote(str(result.best_path))
    console.print(f"  python -m model_export export {path} --out models/{name}/1", soft_wrap=True, markup=False)


def model_name(words: str) -> str:
    """The nearest to `words` that may name a model: `my data` becomes `my-data`."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", words).strip("-_")[:LONGEST_NAME]
    return name if NAME_PATTERN.fullmatch(name) else "model"


def _warn(sentence: str) -> None:
    make_console(stderr=True).print(f"warning: {sentence}", soft_wrap=True, markup=False, highlight=False)


def _source(command: TrainCommand) -> DataSource:
    return DataSource(
        spec=command.data,
        target=command.target,
        ignore=command.ignore,
        directory=command.directory,
        seed=command.seed,
    )


def _network(command: TrainCommand) -> NetworkOptions:
    return NetworkOptions(
        network=command.network,
        placement=cast("Any", command.placement),  # `specify` refuses words that it does not know
        activation=cast("Any", command.activation),
        hidden=None if command.hidden is None else _widths(command.hidden),
        dropout=command.dropout,
        momentum=command.momentum,
        eps=command.eps,
    )


def _options(command: TrainCommand) -> TrainingOptions:
    return TrainingOptions(
        epochs=command.epochs,
        batch_size=command.batch_size,
        learning_rate=command.learning_rate,
        weight_decay=command.weight_decay,
        patience=command.patience,
        seed=command.seed,
        precision=cast("Precision", command.precision),  # refused by TrainingOptions, if need be
    )


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as err:
        raise NetworkInvalid(
            f"--hidden is {text!r}: expected whole numbers with commas in between, as 300,100"
        ) from err
