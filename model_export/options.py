"""What one may choose about training: all that decides the weights besides the data and the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from model_export.errors import NetworkInvalid

Precision = Literal["32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The course of a training run, in JSON's types: it goes into the checkpoint, and a resumed run follows it.

    Attributes:
        epochs: how often each training instance is seen, at most.
        batch_size: instances in a step of one process; two at least, for BatchNorm needs a variance.
        learning_rate: the peak of the one-cycle schedule.
        weight_decay: AdamW's, on weight matrices and kernels only.
        patience: stop after so many epochs without a better valid accuracy; None is never.
        seed: of the first weights, of the order of instances and of dropout.
        precision: `bf16` computes in bfloat16 where autocast finds it safe; weights and statistics stay float32.
        devices: processes on each node, each with its own GPU, or on the CPU. A step then takes batch_size instances in
            each process; the learning rate stays what it is.
        num_nodes: machines that train together, each with as many processes.
        sync_batchnorm: whether BatchNorm normalises with the batches of all processes together; None: where it can,
            which is on GPUs.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-2
    weight_decay: float = 0.1
    patience: int | None = None
    seed: int = 0
    precision: Precision = "32"
    devices: int = 1
    num_nodes: int = 1
    sync_batchnorm: bool | None = None

    @property
    def num_processes(self) -> int:
        """How many processes train together, over all nodes."""
        return self.devices * self.num_nodes

    def __post_init__(self) -> None:
        """Written so that NaN is refused too."""
        checks = {
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 2, "2 or more, for BatchNorm needs a variance"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a number above 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "patience": (self.patience is None or self.patience >= 1, "1 or more"),
            "seed": (0 <= self.seed < 2**32, "a whole number from 0 to 4294967295"),
            "precision": (self.precision in {"32", "bf16"}, "32 or bf16"),
            "devices": (self.devices >= 1, "1 or more"),
            "num_nodes": (self.num_nodes >= 1, "1 or more"),
        }
        for name, (good, expected) in checks.items():
            if not good:
                flag = name.replace("_", "-")
                raise NetworkInvalid(f"--{flag} is {getattr(self, name)}: expected {expected}")
