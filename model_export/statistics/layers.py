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

Listener = Callable[[str, torch.Tensor], None]


def named_batchnorms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Find the BatchNorms of every dimension, SyncBatchNorm too, by qualified name; a shared one by its first name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}


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


def applied_batchnorms(network: nn.Module, batch: torch.Tensor) -> tuple[str, ...]:
    """Run `batch` through the network and name the BatchNorms in the order in which they are applied.

    Raises:
        NetworkInvalid: the network can not take it.
    """
    applied: list[str] = []
    with torch.no_grad(), listening(network, lambda name, _: applied.append(name)):
        try:
            network(batch)
        except Exception as err:
            raise NetworkInvalid(
                f"the network can not take instances of shape {tuple(batch.shape[1:])} and dtype {batch.dtype}: {err}"
            ) from err
    return tuple(applied)


def _tell(hear: Listener, name: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    hear(name, args[0] if args else kwargs["input"])
