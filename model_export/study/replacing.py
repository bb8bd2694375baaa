"""A copy of a network with another layer in the place of each BatchNorm: a mere shift, or one that reads its batch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def replace_batchnorms(network: nn.Module, make: Callable[[_BatchNorm], nn.Module]) -> nn.Module:
    """Copy `network` and put what `make` returns for each BatchNorm in its place; one that is shared stays shared."""
    duplicate = copy.deepcopy(network)
    made: dict[_BatchNorm, nn.Module] = {}
    for parent in list(duplicate.modules()):
        for name, child in list(parent._modules.items()):  # noqa: SLF001  # named_children leaves out shared ones
            if isinstance(child, _BatchNorm):
                made[child] = made.get(child) or make(child)
                parent.register_module(name, made[child])
    return duplicate


class Shift(nn.Module):
    """x + bias for each channel of x, shape (N, C, …): what a network without BatchNorm keeps of one.

    A layer in front of a BatchNorm often has no bias of its own, for β is one: without it the plain network would be
    the poorer one, and the comparison unfair.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Shift `x`; the result has its shape."""
        return x + self.bias.view(1, -1, *(1,) * (x.ndim - 2))


def without_normalising(batchnorm: _BatchNorm) -> nn.Module:
    """What stands in the place of `batchnorm` in the network without."""
    return Shift(batchnorm.num_features) if batchnorm.affine else nn.Identity()


class BatchStatistics(nn.Module):
    """Normalises x, shape (N, C, …), with the mean and the biased variance of x itself, over all axes but C.

    As BatchNorm in training mode does, but for a single value a channel, which BatchNorm refuses: its variance is 0,
    so the answer is β, whatever the instance.
    """

    def __init__(self, batchnorm: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = batchnorm.weight, batchnorm.bias, batchnorm.eps
        self.is_affine = batchnorm.affine

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`; the result has its shape."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        var, mean = torch.var_mean(x, dim=axes, correction=0, keepdim=True)
        normal = (x - mean) / torch.sqrt(var + self.eps)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        return normal * self.weight.view(shape) + self.bias.view(shape) if self.is_affine else normal
