"""The run's folder while it is trained into: claimed before the first step, two checkpoints after each epoch.

Checkpoints hold the network as it is in the first process. Weights are the same in all of them. Moving averages are
the same with SyncBatchNorm, which normalises with all batches of a step together. Without it (on the CPU) each process
normalises with its own batch, and DDP passes the first process's averages on to all before each step: what is kept then
has followed the batches of the first process alone, one n-th of the data. Exact statistics do not depend on it.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback

from model_export.errors import CheckpointInvalid
from model_export.run_folder import BEST, LAST, check_free, claim
from model_export.training.processes import agree
from model_export.training.task import Task


class ClaimFolder(lightning.Callback):
    """Lets the first process claim the folder, as soon as all are there to hear of it, and `folder` give it back."""

    def __init__(self, run_dir: Path, folder: ExitStack, *, overwrite: bool) -> None:
        self.run_dir = run_dir
        self.folder = folder
        self.overwrite = overwrite

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Claim it.

        Raises:
            CheckpointInvalid: it holds a run that may not be overwritten, or another training has it.
            RefusedElsewhere: the same, in the other processes.
        """
        del pl_module, stage
        refusal = None
        if trainer.is_global_zero:
            try:
                check_free(self.run_dir, overwrite=self.overwrite)
                self.folder.enter_context(claim(self.run_dir))
            except CheckpointInvalid as err:
                refusal = err
        agree(trainer, refusal)


class KeepCheckpoints(CheckpointCallback):
    """Keeps the last epoch and the best. Unlike ModelCheckpoint it remembers no path: a run's folder may be moved."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The best first: a run that is resumed from the last epoch repeats what came after it, and nothing before."""
        if not isinstance(pl_module, Task):
            return
        draft = (self.run_dir / LAST).with_suffix(".partial")
        trainer.save_checkpoint(draft)  # all processes gather what is saved, the first writes it
        if trainer.is_global_zero:
            if pl_module.run.best is pl_module.run.history[-1]:
                self._keep_best(draft, instead_of_old_run=len(pl_module.run.history) == 1)
            draft.replace(self.run_dir / LAST)
        pl_module.can_be_resumed = True

    def _keep_best(self, draft: Path, *, instead_of_old_run: bool) -> None:
        """Write beside the checkpoint and rename: an interruption while writing leaves the one before.

        The old run is given up here, when the new one has something to show: its last epoch goes first, so that at no
        time one run's best lies beside another's last.
        """
        copy = (self.run_dir / BEST).with_suffix(".partial")
        shutil.copyfile(draft, copy)
        if instead_of_old_run:
            (self.run_dir / LAST).unlink(missing_ok=True)
        copy.replace(self.run_dir / BEST)
