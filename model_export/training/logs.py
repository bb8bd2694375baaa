"""Logs for those who want to watch a run: CSV or TensorBoard, in the run's folder. The checkpoint needs neither.

Every 50 steps, or each epoch if it is shorter, `train_loss_step` (of this batch, in the first process) and
`learning_rate`; after each epoch `train_loss`, `valid_loss` and `valid_accuracy`, as in the checkpoint's history. A run
that is resumed or overwritten logs into a version of its own: `csv/version_0/metrics.csv`, `tensorboard/version_1`, ….
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as lightning
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from model_export.errors import ExportError, first_line
from model_export.training.task import Task

Log = Literal["csv", "tensorboard"]

STEPS_BETWEEN = 50


class WriteLog(lightning.Callback):
    """Writes the log. Lightning is not told of it: what it would do in each step, beside writing, costs more than this.

    The logger writes in the first process only, and makes its folder when it first writes.
    """

    def __init__(self, logger: Logger) -> None:
        self.logger = logger
        self._periods_told = 0

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Tell of the step that was made, if it is time again."""
        del outputs, batch, batch_idx
        if isinstance(pl_module, Task) and trainer.is_global_zero:
            periods = pl_module.num_steps // min(STEPS_BETWEEN, pl_module.steps_in_epoch or 1)
            if periods > self._periods_told:
                learning_rate = float(trainer.optimizers[0].param_groups[0]["lr"])
                values = {"train_loss_step": pl_module.last_loss, "learning_rate": learning_rate}
                self.logger.log_metrics(values, step=pl_module.num_steps)
                self._periods_told = periods

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Tell of the epoch, and write all that was told so far."""
        if isinstance(pl_module, Task) and trainer.is_global_zero:
            epoch = pl_module.run.history[-1]
            values = {
                "epoch": float(epoch.epoch),
                "train_loss": epoch.train_loss,
                "valid_loss": epoch.valid_loss,
                "valid_accuracy": epoch.valid_accuracy,
            }
            self.logger.log_metrics(values, step=pl_module.num_steps)
            self.logger.save()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Write what there is."""
        del exception
        if isinstance(pl_module, Task) and trainer.is_global_zero and pl_module.num_steps:
            self.logger.finalize("failed")

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write what is left."""
        del pl_module
        if trainer.is_global_zero:
            self.logger.finalize("success")


def open_log(kind: Log, run_dir: Path) -> Logger:
    """A logger into `run_dir`; nothing is written yet.

    Raises:
        ExportError: the package that writes TensorBoard's files is not installed.
    """
    if kind == "csv":
        return CSVLogger(run_dir, name="csv")
    try:
        return TensorBoardLogger(run_dir, name="tensorboard")
    except ModuleNotFoundError as err:
        raise ExportError(
            "--log tensorboard needs a package that is not installed here: pip install 'foldserve[tensorboard]', or "
            f"say --log csv ({first_line(err)})"
        ) from err
