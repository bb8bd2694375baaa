"""The accuracy of a network in inference mode: what the test split is looked at for, once."""

from __future__ import annotations

import torch
from torch import nn

from model_export.data import Split
from model_export.errors import NetworkInvalid
from model_export.logits import compute_logits

EVALUATION_BATCH_SIZE = 1000  # changes nothing but memory and speed


def measure_accuracy(network: nn.Module, split: Split) -> float:
    """The share of `split` that `network`, which must be in inference mode, puts into the right class.

    Raises:
        NetworkInvalid: the network is in training mode, where a batch would change its statistics.
    """
    if network.training:
        raise NetworkInvalid("expected a network in inference mode: say network.eval() first")
    right = compute_logits(network, split).argmax(dim=1) == torch.from_numpy(split.labels)
    return float(right.double().mean())
