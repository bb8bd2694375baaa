"""Training: γ and β of each BatchNorm are learned by backpropagation, its μ and σ follow by moving average.

Lightning runs the loop, in one process or in several. Ours are the parts around it, in `training/`: data that lies in
memory or comes as a stream, AdamW under a one-cycle schedule, and checkpoints at the end of each epoch from which a
resumed run goes on as if it had never stopped, bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as lightning
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from model_export.checkpoint import Checkpoint, Run, load_network, load_splits_of, read_checkpoint
from model_export.data import DataSource, Split, Splits, load_splits
from model_export.data.far import FAR, far_from_zero
from model_export.errors import CheckpointInvalid, DataInvalid, NetworkInvalid
from model_export.networks import NetworkOptions, Standardise, build_network, fit_standardise, specify
from model_export.options import TrainingOptions
from model_export.run_folder import BEST, LAST, check_free
from model_export.threads import threads_for
from model_export.training.accuracy import measure_accuracy
from model_export.training.interruption import TrainingInterrupted, resumable
from model_export.training.keeping import ClaimFolder, KeepCheckpoints
from model_export.training.logs import Log, WriteLog, open_log
from model_export.training.processes import current_rank, from_the_first, together
from model_export.training.task import Task
from model_export.training.trainer import Device, lies_channels_last, make_trainer, synchronises
from model_export.wording import some

__all__ = [
    "Device",
    "Finished",
    "Log",
    "TrainingInterrupted",
    "TrainingResult",
    "measure_accuracy",
    "resume",
    "train",
]


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a run came to. `test_accuracy` is the best checkpoint's: the test split is looked at once, at the end.

    All processes of a run have the same, but for `rank`, their number: that of rank 0 speaks for all.
    """

    best_path: Path
    last_path: Path
    run: Run
    test_accuracy: float
    seconds: float
    rank: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """A run that has just ended well, in each of its processes while they still form a group.

    `checkpoint` and `network` are the best epoch's, the network on the CPU and in training mode; `run` has all epochs.
    All processes have the same.
    """

    run: Run
    checkpoint: Checkpoint
    network: nn.Module
    splits: Splits


@dataclass(frozen=True, kw_only=True)
class _Surroundings:
    """What decides no weight: where a run writes and computes, and whom it tells what."""

    run_dir: Path
    device: Device
    progress: bool
    log: Log | None
    at_end: Callable[[Finished], None] | None


def train(  # noqa: PLR0913  # what to train, and keywords about where and how loudly
    source: DataSource,
    network: NetworkOptions,
    options: TrainingOptions,
    *,
    run_dir: Path,
    device: Device = "auto",
    progress: bool = True,
    overwrite: bool = False,
    splits: Splits | None = None,
    log: Log | None = None,
    warn: Callable[[str], None] | None = None,
    at_end: Callable[[Finished], None] | None = None,
) -> TrainingResult:
    """Train a network and leave `best.ckpt` and `last.ckpt` in `run_dir`; `warn` is told what need not end well.

    `splits` are those of `source`, for a caller who has loaded them already.

    With several processes Lightning starts the others, which run the same program again up to here; or torchrun has.
    Each takes `options.batch_size` instances in a step, so a step is over that many times the number of processes; the
    learning rate is not changed. `at_end` is called in each of them, while they still form a group, when all is saved.

    Raises:
        DataInvalid: the data can not be trained on.
        NetworkInvalid: the network can not be built or diverged; or the device is not there.
        CheckpointInvalid: `run_dir` holds a run already, and `overwrite` is false.
        RefusedElsewhere: another process of the same training raised one of these.
        TrainingInterrupted: Ctrl-C was pressed.
    """
    if options.num_nodes == 1:  # else the first node has the word, as soon as all are there to hear it
        check_free(run_dir, overwrite=overwrite)
    splits = load_splits(source) if splits is None else splits
    run = _plan(source, network, options, splits)
    warn = warn if current_rank() == 0 else None
    with isolate_rng():
        lightning.seed_everything(options.seed, verbose=False)
        module = build_network(run.spec)
        _check_trainable(module, network.network)
        fit_standardise(module, splits.calibration)
        if not any(isinstance(layer, Standardise) for layer in module.modules()):
            _warn_of_far_columns(splits, warn)
        here = _Surroundings(run_dir=run_dir, device=device, progress=progress, log=log, at_end=at_end)
        return _fit(Task(module, run, splits), here, overwrite=overwrite, warn=warn)


def resume(
    last_path: Path,
    *,
    device: Device = "auto",
    progress: bool = True,
    log: Log | None = None,
    at_end: Callable[[Finished], None] | None = None,
) -> TrainingResult:
    """Go on with the run that `last_path` was left by. Data, network and options are those it began with.

    Where several nodes train without a common folder, each needs its own copy of `last_path`.

    Raises:
        CheckpointInvalid: there is no such checkpoint, its data has changed, or the run was over.
        NetworkInvalid, TrainingInterrupted: as `train` does.
    """
    checkpoint = read_checkpoint(last_path)
    if _is_over(checkpoint.run):
        raise CheckpointInvalid(f"{last_path}: this run was over after {len(checkpoint.run.history)} epochs: export it")
    splits = load_splits_of(checkpoint)
    with isolate_rng():
        task = Task(load_network(checkpoint), checkpoint.run, splits)
        here = _Surroundings(run_dir=last_path.parent, device=device, progress=progress, log=log, at_end=at_end)
        return _fit(task, here, overwrite=True, resume_from=last_path)


def _warn_of_far_columns(splits: Splits, warn: Callable[[str], None] | None) -> None:
    names = far_from_zero(splits)
    if names and warn is not None:
        warn(
            f"{some(names)}: the mean is more than {FAR:.0f} times the spread, so float32 loses digits in a network "
            "that begins with BatchNorm, and the export may refuse it: say --placement before, after or none, "
            "which begin with Standardise, or subtract an offset from the column"
        )


def _warn_of_batches_of_their_own(
    options: TrainingOptions, trainer: lightning.Trainer, warn: Callable[[str], None] | None
) -> None:
    on_gpu = trainer.strategy.root_device.type == "cuda"
    if warn is not None and options.num_processes > 1 and not synchronises(options, on_gpu=on_gpu):
        warn(
            f"each of the {options.num_processes} processes normalises with its own batch, and the moving averages "
            "follow those of the first"
            + ("" if on_gpu else ", for PyTorch's SyncBatchNorm computes on GPUs only")
            + "; exact statistics do not depend on it"
        )


def _check_trainable(network: nn.Module, name: str) -> None:
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise NetworkInvalid(f"{name} has no parameter that can be trained: expected one with requires_grad at least")


def _plan(source: DataSource, network: NetworkOptions, options: TrainingOptions, splits: Splits) -> Run:
    _check_enough(splits, options.num_processes)
    if not isinstance(splits.train, Split):  # the user's loader decides
        options = replace(options, batch_size=max(2, splits.train.batch_size or options.batch_size))
    spec = specify(network, instance_shape=splits.instance_shape, num_outputs=len(splits.labels))
    return Run(
        spec=spec,
        source=source,
        options=options,
        data_name=splits.name,
        data_sha256=splits.sha256,
        labels=splits.labels,
        features=splits.features,
    )


def _check_enough(splits: Splits, num_processes: int) -> None:
    if num_processes == 1:
        return
    in_memory = isinstance(splits.train, Split)
    if len(splits.valid) < num_processes or (in_memory and len(splits.train) < 2 * num_processes):
        raise DataInvalid(
            f"{splits.name}: {num_processes} processes need a valid instance and two training instances each at least, "
            f"found {len(splits.valid)}" + (f" and {len(splits.train)}" if in_memory else "")
        )


def _is_over(run: Run) -> bool:
    """Whether all epochs are done or patience ran out, for which an equally good epoch is no better one."""
    num_epochs, patience = len(run.history), run.options.patience
    first_best = max(run.history, key=lambda epoch: epoch.valid_accuracy)
    return num_epochs >= run.options.epochs or (patience is not None and num_epochs - first_best.epoch >= patience)


def _fit(
    task: Task,
    here: _Surroundings,
    *,
    overwrite: bool,
    resume_from: Path | None = None,
    warn: Callable[[str], None] | None = None,
) -> TrainingResult:
    start, options = time.perf_counter(), task.run.options
    with together(options):
        with ExitStack() as folder, _quiet():
            trainer = make_trainer(
                options,
                _callbacks(here, folder, overwrite=overwrite),
                run_dir=here.run_dir,
                device=here.device,
                progress=here.progress,
            )
            _warn_of_batches_of_their_own(options, trainer, warn)
            if lies_channels_last(trainer, task.run.spec.instance_shape):
                task.lay_channels_last()
            _run(trainer, task, here.run_dir, resume_from)
        return _finish(trainer, task, here, start)


def _callbacks(here: _Surroundings, folder: ExitStack, *, overwrite: bool) -> list[lightning.Callback]:
    logs = [] if here.log is None else [WriteLog(open_log(here.log, here.run_dir))]
    return [ClaimFolder(here.run_dir, folder, overwrite=overwrite), KeepCheckpoints(here.run_dir), *logs]


def _run(trainer: lightning.Trainer, task: Task, run_dir: Path, resume_from: Path | None) -> None:
    shape, batch_size = task.run.spec.instance_shape, task.run.options.batch_size
    with resumable(run_dir, lambda: task.can_be_resumed), threads_for(task.network, shape, batch_size):
        task.most_threads = torch.get_num_threads()
        trainer.fit(task, ckpt_path=resume_from, weights_only=True)


def _finish(trainer: lightning.Trainer, task: Task, here: _Surroundings, start: float) -> TrainingResult:
    """What all processes have in the end is what the first has: only its node needs to have the folder."""
    best_path = here.run_dir / BEST
    checkpoint = from_the_first(trainer, lambda: read_checkpoint(best_path))
    network = load_network(checkpoint)
    accuracy = from_the_first(trainer, lambda: measure_accuracy(network.eval(), task.splits.test))
    if here.at_end is not None:
        here.at_end(Finished(run=task.run, checkpoint=checkpoint, network=network.train(), splits=task.splits))
    return TrainingResult(
        best_path=best_path,
        last_path=here.run_dir / LAST,
        run=task.run,
        test_accuracy=accuracy,
        seconds=time.perf_counter() - start,
        rank=trainer.global_rank,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning without its banners, tips and advice, none of which a user of foldserve can act on."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
