"""Traps about what is not linear: maxima, activations and products between the BatchNorm and the nearest layer."""

from __future__ import annotations

from benchmarks.bank.case import keeps
from benchmarks.bank.graph import Graph


def _image(g: Graph) -> str:
    return g.input(g.n(3), g.n(7), g.n(6))


def _conv(g: Graph) -> str:
    return g.conv(_image(g), g.n(3), g.n(4), (2, 2))


@keeps(reason="negative|positive|sign|MaxPool")
def behind_max_pool_with_negative_scale(g: Graph) -> str:
    """Conv, MaxPool, BatchNorm with some γ < 0: the maximum would be the minimum."""
    return g.op("Sigmoid", g.batchnorm(g.op("MaxPool", _conv(g), kernel_shape=[2, 2]), g.n(4)))


@keeps(reason="negative|positive|sign|MaxPool")
def before_max_pool_with_negative_scale(g: Graph) -> str:
    """BatchNorm with some γ < 0, MaxPool, Conv."""
    pooled = g.op("MaxPool", g.batchnorm(_image(g), g.n(3)), kernel_shape=[2, 2])
    return g.conv(pooled, g.n(3), g.n(4), (2, 2))


@keeps()
def shift_before_relu(g: Graph) -> str:
    """BatchNorm with γ > 0 and a shift, Relu, Conv: the shift moves the corner."""
    return g.conv(g.op("Relu", g.batchnorm(_image(g), g.n(3), positive=True)), g.n(3), g.n(4), (2, 2))


@keeps()
def shift_behind_relu(g: Graph) -> str:
    """Conv, Relu, BatchNorm with γ > 0 and a shift."""
    return g.op("Sigmoid", g.batchnorm(g.op("Relu", _conv(g)), g.n(4), positive=True))


@keeps()
def negative_scale_before_relu(g: Graph) -> str:
    """BatchNorm that only scales, with some γ < 0, Relu, Conv."""
    normal = g.batchnorm(_image(g), g.n(3), zero_shift=True)
    return g.conv(g.op("Relu", normal), g.n(3), g.n(4), (2, 2))


@keeps()
def between_sigmoids(g: Graph) -> str:
    """Conv, Sigmoid, BatchNorm, Sigmoid: nothing linear is next to it."""
    return g.op("Sigmoid", g.batchnorm(g.op("Sigmoid", _conv(g)), g.n(4)))


@keeps()
def behind_softmax(g: Graph) -> str:
    """Gemm, Softmax, BatchNorm, Softmax."""
    dense = g.op("Softmax", g.gemm(g.input(g.n(6)), g.n(6), g.n(5)))
    return g.op("Softmax", g.batchnorm(dense, g.n(5)))


@keeps()
def behind_clip(g: Graph) -> str:
    """Conv, Clip from 0 to 6, BatchNorm that only scales: the bound would be another for each channel."""
    clipped = g.op("Clip", _conv(g), g.constant(0.0), g.constant(6.0))
    return g.op("Sigmoid", g.batchnorm(clipped, g.n(4), positive=True, zero_shift=True))


@keeps()
def sum_with_an_activation(g: Graph) -> str:
    """Conv plus a Sigmoid of the input, BatchNorm: the Sigmoid's branch takes no scale."""
    x = _image(g)
    total = g.op("Add", g.conv(x, g.n(3), g.n(3), (1, 1)), g.op("Sigmoid", x))
    return g.op("Sigmoid", g.batchnorm(total, g.n(3)))


@keeps()
def concat_with_an_activation(g: Graph) -> str:
    """Conv beside a Sigmoid of the input, BatchNorm over both."""
    x = _image(g)
    both = g.op("Concat", g.conv(x, g.n(3), g.n(4), (1, 1)), g.op("Sigmoid", x), axis=1)
    return g.op("Sigmoid", g.batchnorm(both, g.n(4) + g.n(3)))


@keeps()
def product_of_two_convs(g: Graph) -> str:
    """The product of two Convs: a shift of one is a shift of neither."""
    x = _image(g)
    product = g.op("Mul", g.conv(x, g.n(3), g.n(4), (1, 1)), g.conv(x, g.n(3), g.n(4), (1, 1)))
    return g.op("Sigmoid", g.batchnorm(product, g.n(4)))


@keeps()
def residual_around_an_activation(g: Graph) -> str:
    """BatchNorm of x plus Relu of Conv of x: the Conv is not linear in the sum."""
    x = _image(g)
    hidden = g.op("Relu", g.conv(x, g.n(3), g.n(3), (1, 1)))
    return g.op("Sigmoid", g.op("Add", g.batchnorm(x, g.n(3)), hidden))
