"""An independent copy of a network in inference mode: what every transform here works on, so the caller's stays put."""

from __future__ import annotations

import copy

import torch
from torch import nn

from model_export.errors import NetworkInvalid


def inference_copy(network: nn.Module, *, device: torch.device | str | None = None) -> nn.Module:
    """Copy `network` with its weights, buffers, sharing and hooks; the copy is in inference mode, and on `device`.

    Raises:
        NetworkInvalid: something in the network can not be copied.
    """
    try:
        duplicate = copy.deepcopy(network, _computed_tensors(network))
    except Exception as err:  # the objects in a network decide what their copying raises
        raise NetworkInvalid(
            f"the network can not be copied: {err}. Keep files, locks and other handles out of its attributes"
        ) from err
    duplicate.eval()
    return duplicate if device is None else duplicate.to(device)


def _computed_tensors(network: nn.Module) -> dict[int, torch.Tensor]:
    """Copies of what deepcopy refuses: tensors with a gradient history, such as the `weight` of a hooked weight_norm.

    They are a memo for deepcopy, which takes an object that it finds there as copied already.
    """
    return {
        id(value): value.detach().clone()
        for module in network.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
