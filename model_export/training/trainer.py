"""Lightning's Trainer for one run: on what it computes, in how many processes, and in which precision.

channels_last. On CUDA, networks for images are laid out [N, H, W, C] in memory: cuDNN's kernels for tensor cores want
that, and would otherwise transpose each convolution's input and output. It changes no result beyond rounding, so there
is nothing to choose. On the CPU it is off: there runs are repeated bit for bit, also those of earlier versions. What it
would gain, measured on one thread with batches of 64: 3 % of a step of `convnet` on 28 × 28 pixels, 15 % of one of six
padded convolutions of 32 to 128 channels on 32 × 32.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import lightning.pytorch as lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar

from model_export.devices import find_device
from model_export.errors import NetworkInvalid, first_line
from model_export.options import TrainingOptions
from model_export.training.processes import check_launched

Device = Literal["auto", "cpu", "cuda"]


def make_trainer(
    options: TrainingOptions,
    callbacks: Iterable[lightning.Callback],
    *,
    run_dir: Path,
    device: Device,
    progress: bool,
) -> lightning.Trainer:
    """A trainer for a run with `options`, in one process of those that they ask for.

    Raises:
        NetworkInvalid: there are not so many devices, or torchrun has started another number of processes.
    """
    on_gpu = find_device(device) == "cuda"
    check_launched(options)
    try:
        return lightning.Trainer(
            accelerator="gpu" if on_gpu else "cpu",
            devices=options.devices,
            num_nodes=options.num_nodes,
            strategy="auto" if options.num_processes == 1 else "ddp",
            sync_batchnorm=synchronises(options, on_gpu=on_gpu),
            precision="bf16-mixed" if options.precision == "bf16" else "32-true",
            max_epochs=options.epochs,
            callbacks=[*callbacks, *_stopping(options), *([RichProgressBar()] if progress else [])],
            default_root_dir=run_dir,
            logger=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,  # an epoch's batches are a new value
            use_distributed_sampler=False,  # batches are shared out where they are made
            enable_model_summary=False,
            enable_progress_bar=progress,
        )
    except (MisconfigurationException, ValueError) as err:
        raise NetworkInvalid(
            f"--devices {options.devices} --num-nodes {options.num_nodes} can not be had here: {first_line(err)}"
        ) from err


def synchronises(options: TrainingOptions, *, on_gpu: bool) -> bool:
    """Whether BatchNorm normalises with the batches of all processes together.

    Raises:
        NetworkInvalid: it is asked for where PyTorch can not do it.
    """
    if options.sync_batchnorm and not on_gpu:
        raise NetworkInvalid(
            "--sync-batchnorm: PyTorch's SyncBatchNorm computes on GPUs only: drop it, and each process normalises "
            "with its own batch"
        )
    return options.num_processes > 1 and on_gpu and options.sync_batchnorm is not False


def lies_channels_last(trainer: lightning.Trainer, instance_shape: tuple[int, ...]) -> bool:
    """Whether a network for such instances is to be laid out [N, H, W, C]."""
    return len(instance_shape) == 3 and trainer.strategy.root_device.type == "cuda"


def _stopping(options: TrainingOptions) -> list[lightning.Callback]:
    if options.patience is None:
        return []
    return [EarlyStopping("valid_accuracy", mode="max", patience=options.patience, check_on_train_epoch_end=True)]
