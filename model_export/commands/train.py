"""`train`: turns the words of the command line into data, network and options, trains, and says what to do next."""

from __future__ import annotations

import datetime as dt
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from model_export.commands.choices import choose
from model_export.commands.present import make_console
from model_export.conclusion import REPORT, Conclusion, conclude
from model_export.data import DataSource
from model_export.errors import ExportError, NetworkInvalid, RefusedElsewhere, first_line
from model_export.networks import NetworkOptions
from model_export.ones_own import is_ones_own
from model_export.options import Precision, TrainingOptions
from model_export.train import Device, Finished, Log, TrainingInterrupted, TrainingResult, resume, train
from model_export.training.processes import current_rank
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
    devices: int
    num_nodes: int
    sync_batchnorm: bool | None
    log: str | None
    resume: Path | None
    out: Path | None
    overwrite: bool
    report: bool
    quiet: bool


def run_train(command: TrainCommand, console: Console) -> TrainingResult:
    """Train, or go on training, and show what came of it; of several processes, the first speaks for all.

    Raises:
        ExportError: a flag's value is not allowed, or a room refused.
        SystemExit: the same, or an interruption, in a process that leaves it to the first one to say so.
    """
    conclusions: list[Conclusion] = []
    try:
        result = _train(command, conclusions.append)
    except RefusedElsewhere as err:
        raise SystemExit(1) from err
    except TrainingInterrupted as err:
        if current_rank() > 0:
            raise SystemExit(err.exit_code) from err
        raise
    if result.rank == 0:
        show_result(result, console)
        for conclusion in conclusions:
            show_conclusion(conclusion, console)
    return result


def _train(command: TrainCommand, keep: Callable[[Conclusion], None]) -> TrainingResult:
    device = choose("--device", command.device, Device)
    log = None if command.log is None else choose("--log", command.log, Log)
    progress = not command.quiet
    at_end = partial(_conclude, device=device, keep=keep) if command.report else None
    if command.resume is not None:
        return resume(command.resume, device=device, progress=progress, log=log, at_end=at_end)
    return train(
        _source(command),
        _network(command),
        _options(command),
        run_dir=command.out or Path("runs") / data_name(command.data),
        device=device,
        progress=progress,
        overwrite=command.overwrite,
        log=log,
        warn=_warn,
        at_end=at_end,
    )


def _conclude(finished: Finished, *, device: Device, keep: Callable[[Conclusion], None]) -> None:
    """A report that can not be made is no reason to lose a run: the checkpoints are there, and say the same."""
    try:
        keep(conclude(finished, when=dt.datetime.now().astimezone(), device=device))
    except (ExportError, OSError) as err:
        if current_rank() == 0:
            _warn(f"there is no {REPORT}: {first_line(err)}")


def show_result(result: TrainingResult, console: Console) -> None:
    """The best epoch, the held-out accuracy, and the next command."""
    best, name = result.run.best, model_name(data_name(result.run.source.spec))
    console.print(
        f"Trained {result.run.spec.options.network} on {result.run.data_name} in {result.seconds:.1f} s: "
        f"test accuracy {result.test_accuracy:.4f}, best epoch {best.epoch} of {len(result.run.history)}",
        soft_wrap=True,
        markup=False,
    )
    console.print("Make a bundle of it:", soft_wrap=True)
    path = shlex.quote(str(result.best_path))
    console.print(f"  python -m model_export export {path} --out models/{name}/1", soft_wrap=True, markup=False)


def show_conclusion(conclusion: Conclusion, console: Console) -> None:
    """Where the report lies; and what the audit found, if the moving averages had better not be used."""
    console.print(f"Report: {conclusion.report_path}", soft_wrap=True, markup=False, highlight=False)
    if not conclusion.audit.usable:
        console.print(conclusion.audit.advice, soft_wrap=True, markup=False, highlight=False)


def data_name(spec: str) -> str:
    """What a run on this data is called, if nothing else is said: the file's name, or that of the user's module."""
    return spec.partition(":")[2] if is_ones_own(spec) else Path(spec).resolve().stem


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
        devices=command.devices,
        num_nodes=command.num_nodes,
        sync_batchnorm=command.sync_batchnorm,
    )


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as err:
        raise NetworkInvalid(
            f"--hidden is {text!r}: expected whole numbers with commas in between, as 300,100"
        ) from err
