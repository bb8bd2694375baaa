"""What a network answers to a whole split: the one loop behind accuracies, audits and reports."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_export.batches import Batches
from model_export.data import Split

BATCH_SIZE = 1000  # changes nothing but memory and speed


def compute_logits(network: nn.Module, split: Split) -> Tensor:
    """The logits of `network`, which must be in inference mode, on the CPU, shape (N, labels); it runs where it is."""
    device = next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
    with torch.inference_mode():
        return torch.cat([network(instances.to(device)).cpu() for instances, _ in Batches(split, BATCH_SIZE)])
