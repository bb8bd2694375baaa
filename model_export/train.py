"""Training: γ and β of each BatchNorm are learned by backpropagation, its μ and σ follow by moving average.

Lightning runs the loop. Ours are the parts around it: data that lies in memory, AdamW under a one-cycle schedule, and
checkpoints at the end of each epoch from which a resumed run goes on as if it had never stopped, bit for bit on a CPU.
Whatever an epoch draws at random it draws from the seed and its own number, so no generator's state has to be saved.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, RichProgressBar
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from model_export.batches import Batches
from model_export.checkpoint import ENTRY, Epoch, Run, encode_run, load_network, load_splits_of, read_checkpoint
from model_export.data import DataSource, Split, Splits, load_splits
from model_export.data.far import FAR, far_from_zero
from model_export.digest import digest_weights
from model_export.errors import CheckpointInvalid, NetworkInvalid
from model_export.networks import NetworkOptions, Standardise, build_network, fit_standardise, specify
from model_export.options import TrainingOptions
from model_export.run_folder import BEST, LAST, check_free, claim
from model_export.threads import threads_for
from model_export.wording import some

EVALUATION_BATCH_SIZE = 1000  # changes nothing but memory and speed

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a run came to. `test_accuracy` is the best checkpoint's: the test split is looked at once, at the end."""

    best_path: Path
    last_path: Path
    run: Run
    test_accuracy: float
    seconds: float


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, with a sentence that says how to go on. No Exception, so that nothing swallows it.

    `exit_code` is what a process that ends of it reports: 128 and the signal's number.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which Lightning would take for a run that ended well."""


def train(  # noqa: PLR0913  # what to train, and four keywords about where and how loudly
    source: DataSource,
    network: NetworkOptions,
    options: TrainingOptions,
    *,
    run_dir: Path,
    device: Device = "auto",
    progress: bool = True,
    overwrite: bool = False,
    warn: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Train a network and leave `best.ckpt` and `last.ckpt` in `run_dir`; `warn` is told what need not end well.

    Raises:
        DataInvalid: the data can not be trained on.
        NetworkInvalid: the network can not be built or diverged; or the device is not there.
        CheckpointInvalid: `run_dir` holds a run already, and `overwrite` is false.
        TrainingInterrupted: Ctrl-C was pressed.
    """
    check_free(run_dir, overwrite=overwrite)
    splits = load_splits(source)
    run = _plan(source, network, options, splits)
    with isolate_rng():
        lightning.seed_everything(options.seed, verbose=False)
        module = build_network(run.spec)
        _check_trainable(module, network.network)
        fit_standardise(module, splits.train.instances)
        if not any(isinstance(layer, Standardise) for layer in module.modules()):
            _warn_of_far_columns(splits, warn)
        return _fit(_Task(module, run, splits), run_dir, device=device, progress=progress)


def resume(last_path: Path, *, device: Device = "auto", progress: bool = True) -> TrainingResult:
    """Go on with the run that `last_path` was left by. Data, network and options are those it began with.

    Raises:
        CheckpointInvalid: there is no such checkpoint, its data has changed, or the run was over.
        NetworkInvalid, TrainingInterrupted: as `train` does.
    """
    checkpoint = read_checkpoint(last_path)
    if _is_over(checkpoint.run):
        raise CheckpointInvalid(f"{last_path}: this run was over after {len(checkpoint.run.history)} epochs: export it")
    splits = load_splits_of(checkpoint)
    with isolate_rng():
        task = _Task(load_network(checkpoint), checkpoint.run, splits)
        return _fit(task, last_path.parent, device=device, progress=progress, resume_from=last_path)


def measure_accuracy(network: nn.Module, split: Split) -> float:
    """The share of `split` that `network`, which must be in inference mode, puts into the right class.

    Raises:
        NetworkInvalid: the network is in training mode, where a batch would change its statistics.
    """
    if network.training:
        raise NetworkInvalid("expected a network in inference mode: say network.eval() first")
    with torch.inference_mode():
        batches = Batches(split, EVALUATION_BATCH_SIZE)
        num_right = sum(int((network(instances).argmax(dim=1) == labels).sum()) for instances, labels in batches)
    return num_right / len(split)


def _warn_of_far_columns(splits: Splits, warn: Callable[[str], None] | None) -> None:
    names = far_from_zero(splits)
    if names and warn is not None:
        warn(
            f"{some(names)}: the mean is more than {FAR:.0f} times the spread, so float32 loses digits in a network "
            "that begins with BatchNorm, and the export may refuse it: say --placement before, after or none, "
            "which begin with Standardise, or subtract an offset from the column"
        )


def _check_trainable(network: nn.Module, name: str) -> None:
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise NetworkInvalid(f"{name} has no parameter that can be trained: expected one with requires_grad at least")


def _plan(source: DataSource, network: NetworkOptions, options: TrainingOptions, splits: Splits) -> Run:
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


def _is_over(run: Run) -> bool:
    """Whether all epochs are done or patience ran out, for which an equally good epoch is no better one."""
    num_epochs, patience = len(run.history), run.options.patience
    first_best = max(run.history, key=lambda epoch: epoch.valid_accuracy)
    return num_epochs >= run.options.epochs or (patience is not None and num_epochs - first_best.epoch >= patience)


def _fit(
    task: _Task, run_dir: Path, *, device: Device, progress: bool, resume_from: Path | None = None
) -> TrainingResult:
    start = time.perf_counter()
    options, shape = task.run.options, task.run.spec.instance_shape
    with claim(run_dir), _quiet(), _resumable(task, run_dir), threads_for(task.network, shape, options.batch_size):
        trainer = _make_trainer(options, run_dir, device=device, progress=progress)
        trainer.fit(task, ckpt_path=resume_from, weights_only=True)
    best = read_checkpoint(run_dir / BEST)
    test_accuracy = measure_accuracy(load_network(best).eval(), task.splits.test)
    return TrainingResult(
        best_path=run_dir / BEST,
        last_path=run_dir / LAST,
        run=task.run,
        test_accuracy=test_accuracy,
        seconds=time.perf_counter() - start,
    )


def _make_trainer(options: TrainingOptions, run_dir: Path, *, device: Device, progress: bool) -> lightning.Trainer:
    if device == "cuda" and not torch.cuda.is_available():
        raise NetworkInvalid("--device cuda: PyTorch finds no CUDA device: install its CUDA build, or say --device cpu")
    callbacks: list[Callback] = [_KeepCheckpoints(run_dir)]
    if options.patience is not None:
        callbacks.append(
            EarlyStopping("valid_accuracy", mode="max", patience=options.patience, check_on_train_epoch_end=True)
        )
    if progress:
        callbacks.append(RichProgressBar())
    return lightning.Trainer(
        accelerator="gpu" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu",
        devices=1,
        precision="bf16-mixed" if options.precision == "bf16" else "32-true",
        max_epochs=options.epochs,
        callbacks=callbacks,
        default_root_dir=run_dir,
        logger=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,  # an epoch's batches are a new value
        enable_model_summary=False,
        enable_progress_bar=progress,
    )


class _Task(lightning.LightningModule):
    """The network, what it learns from, and the run so far, in the form that Lightning wants."""

    def __init__(self, network: nn.Module, run: Run, splits: Splits) -> None:
        super().__init__()
        self.network = network
        self.run = run
        self.splits = splits
        self.can_be_resumed = bool(run.history)

    def train_dataloader(self) -> Batches:
        seed = _seed_of_epoch(self.run.options.seed, self.current_epoch)
        return Batches(self.splits.train, self.run.options.batch_size, shuffle_seed=seed)

    def val_dataloader(self) -> Batches:
        return Batches(self.splits.valid, EVALUATION_BATCH_SIZE)

    def configure_optimizers(self) -> Any:
        options = self.run.options
        optimizer = torch.optim.AdamW(_parameter_groups(self.network, options.weight_decay), lr=options.learning_rate)
        num_steps = options.epochs * len(Batches(self.splits.train, options.batch_size))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=options.learning_rate, total_steps=num_steps, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(_seed_of_epoch(self.run.options.seed, self.current_epoch))  # for dropout

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        instances, labels = batch
        loss = cross_entropy(self.network(instances), labels)
        if not torch.isfinite(loss):
            raise NetworkInvalid(
                f"training diverged: the loss is {loss.item()} in step {self.global_step + 1} (epoch "
                f"{self.current_epoch + 1}): try a smaller --learning-rate than {self.run.options.learning_rate}, or "
                "--precision 32; very large values in the data do it too"
            )
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        instances, labels = batch
        logits = self.network(instances)
        right = (logits.argmax(dim=1) == labels).float().mean()
        self.log("valid_loss", cross_entropy(logits.float(), labels), batch_size=len(labels))
        self.log("valid_accuracy", right, batch_size=len(labels), prog_bar=True)

    def on_train_epoch_end(self) -> None:
        measures = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        epoch = Epoch(
            epoch=self.current_epoch + 1,
            train_loss=measures["train_loss"],
            valid_loss=measures["valid_loss"],
            valid_accuracy=measures["valid_accuracy"],
        )
        self.run = replace(self.run, history=(*self.run.history, epoch))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[ENTRY] = encode_run(self.run, weights_sha256=digest_weights(self.network))


class _KeepCheckpoints(CheckpointCallback):
    """Keeps the last epoch and the best. Unlike ModelCheckpoint it remembers no path: a run's folder may be moved."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The best first: a run that is resumed from the last epoch repeats what came after it, and nothing before."""
        if not isinstance(pl_module, _Task):
            return
        if pl_module.run.best is pl_module.run.history[-1]:
            self._save(trainer, BEST, instead_of_old_run=len(pl_module.run.history) == 1)
        self._save(trainer, LAST)
        pl_module.can_be_resumed = True

    def _save(self, trainer: lightning.Trainer, name: str, *, instead_of_old_run: bool = False) -> None:
        """Write beside the checkpoint and rename: an interruption while writing leaves the one before.

        The old run is given up here, when the new one has something to show: its last epoch goes first, so that at no
        time one run's best lies beside another's last.
        """
        path = self.run_dir / name
        draft = path.with_suffix(".partial")
        trainer.save_checkpoint(draft)
        if instead_of_old_run:
            (self.run_dir / LAST).unlink(missing_ok=True)
        draft.replace(path)


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of one axis (biases, γ and β) do not decay: that would only pull γ towards switching channels off."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _seed_of_epoch(seed: int, epoch: int) -> int:
    return seed * 1_000_003 + epoch


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning without its banners, tips and advice, none of which a user of foldserve can act on."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _resumable(task: _Task, run_dir: Path) -> Iterator[None]:
    """Lightning turns Ctrl-C into `sys.exit(1)` and leaves Ctrl-C switched off: undo both, and say how to go on."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.suppress(ValueError):  # outside the main thread no handler can be set
            signal.signal(signal.SIGTERM, _terminate)
        yield
    except (KeyboardInterrupt, SystemExit) as err:
        if not isinstance(err, KeyboardInterrupt) and not isinstance(err.__context__, KeyboardInterrupt):
            raise
        again = f"go on with --resume {shlex.quote(str(run_dir / LAST))}"
        way = again if task.can_be_resumed else "no epoch was complete: start again"
        terminated = isinstance(err, _Terminated) or isinstance(err.__context__, _Terminated)
        number = signal.SIGTERM if terminated else signal.SIGINT
        raise TrainingInterrupted(f"interrupted: {way}", exit_code=128 + number) from err
    finally:
        with contextlib.suppress(ValueError):  # there, none was changed either
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _terminate(*_: object) -> None:
    raise _Terminated
