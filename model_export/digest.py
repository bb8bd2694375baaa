"""The digest of a network's weights: tells whether statistics were taken with the weights that they lie beside.

Statistics follow from the weights, so these are all tensors of the state dict but the BatchNorms' own averages.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from model_export.statistics import named_batchnorms

AVERAGES = ("running_mean", "running_var", "num_batches_tracked")


def digest_weights(network: nn.Module) -> str:
    """SHA-256, in hexadecimal, over names, dtypes, shapes and bytes; the averages of BatchNorms do not count."""
    averages = {f"{name}.{kind}".lstrip(".") for name in _all_names_of_batchnorms(network) for kind in AVERAGES}
    sha256 = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if isinstance(tensor, Tensor) and name not in averages:
            sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha256.update(_bytes(tensor))
    return sha256.hexdigest()


def _all_names_of_batchnorms(network: nn.Module) -> list[str]:
    """Every name of every one: in a state dict a shared layer stands under each."""
    batchnorms = {id(batchnorm) for batchnorm in named_batchnorms(network).values()}
    return [name for name, module in network.named_modules(remove_duplicate=False) if id(module) in batchnorms]


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
