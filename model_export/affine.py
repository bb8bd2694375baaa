"""The algebra of folding: a frozen BatchNorm is one scale and one shift per channel, and a linear layer absorbs both.

In inference mode (Ioffe & Szegedy 2015, algorithm 2, line 11) a BatchNorm computes, channel by channel,

    y = γ·(x − μ)/√(σ² + ε) + β  =  scale·x + shift     with  scale = γ/√(σ²+ε),  shift = β − μ·scale

A linear layer y = W x + b, written with W as (outputs, inputs of a group, *kernel), absorbs such a map

    behind it:  scale·(W x + b) + shift      =  (scale·W) x + (scale·b + shift)         row by row
    before it:  W (scale·x + shift) + b      =  (W·scale) x + (b + Σ W·shift)           column by column

The second is exact for a convolution only where it reads no padding: a padded zero is not shifted. Everything here
is float64 and returns new arrays; whoever calls rounds once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """y = scale·x + shift: two float64 arrays that broadcast against x, with as many axes as x (or (channels,) each).

    An axis of length 1 says that the map is the same everywhere along it; any other length is that of x.
    """

    scale: Array
    shift: Array

    @property
    def rank(self) -> int:
        """The number of axes."""
        return self.scale.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        """The length along each axis; 1 where the map does not vary."""
        return np.broadcast_shapes(self.scale.shape, self.shift.shape)

    @property
    def has_shift(self) -> bool:
        """Whether the shift is anything but zero."""
        return bool(self.shift.any())

    @property
    def without_shift(self) -> Affine:
        """The scale alone."""
        return Affine(self.scale, np.zeros((1,) * self.rank))

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing at all."""
        return not self.has_shift and bool((self.scale == 1).all())

    @property
    def varying_axes(self) -> tuple[int, ...]:
        """The axes along which the map differs from place to place."""
        return tuple(axis for axis in range(self.rank) if self.varies_along(axis))

    def varies_along(self, axis: int) -> bool:
        """Whether the map differs from place to place along this axis."""
        return self.shape[axis] != 1

    def then(self, outer: Affine) -> Affine:
        """The map that is this one first, `outer` on its result."""
        return Affine(outer.scale * self.scale, outer.scale * self.shift + outer.shift)

    def map(self, change: Callable[[Array], Array]) -> Affine:
        """The same map on values that were rearranged: `change` rearranges scale and shift."""
        return Affine(change(self.scale), change(self.shift))

    def compressed(self) -> Affine:
        """The same map, with length 1 along every axis on which nothing differs."""
        return self.map(_without_repetition)

    def on_axis(self, axis: int, rank: int) -> Affine:
        """A map of shape (channels,) laid along one of `rank` axes."""
        shape = tuple(-1 if k == axis else 1 for k in range(rank))
        return self.map(lambda values: values.reshape(shape))


@dataclass(frozen=True)
class Linear:
    """y = W x + b: `weight` (outputs, inputs // groups, *kernel), `bias` (outputs,), float64.

    Output o belongs to group o // (outputs // groups); column i of its row is input channel
    group·(inputs // groups) + i.
    """

    weight: Array
    bias: Array
    groups: int = 1

    @property
    def num_outputs(self) -> int:
        """The number of output channels."""
        return len(self.weight)

    @property
    def num_inputs(self) -> int:
        """The number of input channels, over all groups."""
        return int(self.weight.shape[1]) * self.groups


Fold = Callable[[Linear], Linear]


def affine_of_batchnorm(scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Affine:
    """The map that a frozen BatchNorm with these γ (`scale`), β (`shift`), μ, σ² and ε is."""
    gain = scale / np.sqrt(var + eps)
    return Affine(gain, shift - mean * gain)


def absorb_behind(linear: Linear, affine: Affine) -> Linear:
    """The linear layer that is `linear`, then `affine` on its output channels."""
    scale = _along_axis(affine.scale, axis=0, ndim=linear.weight.ndim)
    return Linear(linear.weight * scale, linear.bias * affine.scale + affine.shift, linear.groups)


def absorb_before(affine: Affine, linear: Linear) -> Linear:
    """The linear layer that is `affine` on the input channels, then `linear`."""
    scale, shift = (_by_row(values, linear) for values in (affine.scale, affine.shift))
    kernel_axes = tuple(range(2, linear.weight.ndim))
    shifted = (linear.weight.sum(axis=kernel_axes) * shift).sum(axis=1)
    scaled = linear.weight * scale.reshape(scale.shape + (1,) * len(kernel_axes))
    return Linear(scaled, linear.bias + shifted, linear.groups)


def _without_repetition(values: Array) -> Array:
    for axis in range(values.ndim):
        first = values.take([0], axis=axis) if values.shape[axis] else values
        values = first if (values == first).all() else values
    return values


def _by_row(values: Array, linear: Linear) -> Array:
    """Values of the input channels, laid out as the columns of each output's row: (outputs, inputs // groups)."""
    of_group = values.reshape(linear.groups, -1)
    return np.repeat(of_group, linear.num_outputs // linear.groups, axis=0)


def _along_axis(values: Array, *, axis: int, ndim: int) -> Array:
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)
