"""Where PyTorch runs: one answer to `--device`, for training, measuring and auditing alike."""

from __future__ import annotations

import torch

from model_export.errors import NetworkInvalid
from service.device import Device


def find_device(wanted: Device) -> str:
    """Where PyTorch is to run: on the GPU if there is one, unless the CPU is wanted.

    Raises:
        NetworkInvalid: a GPU is wanted, and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise NetworkInvalid("--device cuda: PyTorch finds no CUDA device: install its CUDA build, or say --device cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
