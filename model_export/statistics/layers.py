"""The BatchNorms of a network: found by their qualified names, and listened to while the network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from model_export.errors import NetworkInvalid
from model_export.frozen_batchnorm import FrozenBatchNorm

BatchNorm = _BatchNorm | FrozenBatchNorm
Listener = Callable[[str, torch.Tensor], None]
Heard = list[tuple[str, torch.Tensor]]


def named_batchnorms(network: nn.Module) -> dict[str, BatchNorm]:
    """Find the BatchNorms of every dimension, synchronised and frozen ones too, by qualified name.

    One that is shared has its first name.

    Raises:
        NetworkInvalid: a part of the network is a TorchScript module with BatchNorms in it, which can not be reached.
    """
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and "BatchNorm" in str(module.original_name):
            raise NetworkInvalid(
                f"BatchNorm {name!r} is part of a TorchScript module, where it can be neither measured nor frozen: use "
                "the module as it was before torch.jit.script"
            )
    return {name: module for name, module in network.named_modules() if isinstance(module, BatchNorm)}


@contextmanager
def listening(network: nn.Module, hear: Listener) -> Iterator[None]:
    """Let `hear(name, input)` be called, within the context, just before a BatchNorm is applied."""
    handles = [
        batchnorm.register_forward_pre_hook(partial(_tell, hear, name), with_kwargs=True)
        for name, batchnorm in named_batchnorms(network).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hear_batchnorms(network: nn.Module, batch: torch.Tensor) -> Heard:
    """Run `batch` through the network and note each BatchNorm with a copy of its input, in the order of application.

    Raises:
        NetworkInvalid: the network can not take it.
    """
    heard: Heard = []
    with torch.no_grad(), listening(network, lambda name, values: heard.append((name, values.clone()))):
        try:
            network(batch.clone())
        except Exception as err:
            raise NetworkInvalid(
                f"the network can not take instances of shape {tuple(batch.shape[1:])} and dtype {batch.dtype}: {err}"
            ) from err
    return heard


def applied_batchnorms(network: nn.Module, batch: torch.Tensor) -> tuple[str, ...]:
    """Run `batch` through the network and name the BatchNorms in the order in which they are applied.

    Raises:
        NetworkInvalid: the network can not take it.
    """
    return tuple(name for name, _ in hear_batchnorms(network, batch))


def _tell(hear: Listener, name: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    hear(name, args[0] if args else kwargs["input"])
