"""BatchNorm behind a convolution, plain, grouped or transposed: each output channel's weights times its scale."""

from __future__ import annotations

from benchmarks.bank.case import folds
from benchmarks.bank.graph import Graph


@folds()
def conv1d(g: Graph) -> str:
    """Conv over one axis, padded."""
    return g.batchnorm(g.conv(g.input(g.n(3), g.n(6)), g.n(3), g.n(4), (3,), pads=[1, 1]), g.n(4))


@folds()
def conv1d_without_bias(g: Graph) -> str:
    """Conv over one axis without a bias."""
    return g.batchnorm(g.conv(g.input(g.n(3), g.n(6)), g.n(3), g.n(4), (3,), bias=False), g.n(4))


@folds()
def conv2d(g: Graph) -> str:
    """Conv over two axes, padded: zeros before the Conv do not matter behind it."""
    return g.batchnorm(g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4), pads=[1, 1, 1, 1]), g.n(4))


@folds()
def conv2d_without_bias(g: Graph) -> str:
    """Conv over two axes without a bias, the commonest of all."""
    return g.batchnorm(g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4), bias=False), g.n(4))


@folds()
def conv2d_strided_and_dilated(g: Graph) -> str:
    """Conv with strides, dilations and unequal padding."""
    x = g.input(g.n(3), g.n(7), g.n(6))
    conv = g.conv(x, g.n(3), g.n(4), (2, 3), strides=[2, 1], dilations=[1, 2], pads=[0, 1, 1, 2])
    return g.batchnorm(conv, g.n(4))


@folds()
def conv2d_auto_pad(g: Graph) -> str:
    """Conv that pads by itself."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4), auto_pad="SAME_UPPER", strides=[2, 2])
    return g.batchnorm(conv, g.n(4))


@folds()
def conv3d(g: Graph) -> str:
    """Conv over three axes."""
    x = g.input(g.n(3), g.n(6), g.n(5), g.n(4))
    return g.batchnorm(g.conv(x, g.n(3), g.n(2), (2, 2, 2)), g.n(2))


@folds()
def conv3d_without_bias(g: Graph) -> str:
    """Conv over three axes without a bias."""
    x = g.input(g.n(3), g.n(6), g.n(5), g.n(4))
    return g.batchnorm(g.conv(x, g.n(3), g.n(2), (2, 2, 2), bias=False), g.n(2))


@folds()
def grouped_conv(g: Graph) -> str:
    """Conv in two groups."""
    return g.batchnorm(g.conv(g.input(g.n(6), g.n(7), g.n(5)), g.n(6), g.n(8), group=2), g.n(8))


@folds()
def depthwise_conv(g: Graph) -> str:
    """Conv with a group for each channel."""
    conv = g.conv(g.input(g.n(3), g.n(7), g.n(5)), g.n(3), g.n(3), group=g.n(3), bias=False, pads=[1, 1, 1, 1])
    return g.batchnorm(conv, g.n(3))


@folds()
def depthwise_conv_with_multiplier(g: Graph) -> str:
    """Conv with a group for each channel and two outputs from each."""
    c = g.n(3)
    return g.batchnorm(g.conv(g.input(c, g.n(7), g.n(5)), c, 2 * c, group=c), 2 * c)


@folds()
def conv_transpose1d(g: Graph) -> str:
    """ConvTranspose over one axis: its output channels are the weight's second axis."""
    return g.batchnorm(g.conv_transpose(g.input(g.n(3), g.n(6)), g.n(3), g.n(4), (3,), strides=[2]), g.n(4))


@folds()
def conv_transpose2d(g: Graph) -> str:
    """ConvTranspose over two axes, padded at both ends."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    conv = g.conv_transpose(x, g.n(3), g.n(4), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
    return g.batchnorm(conv, g.n(4))


@folds()
def conv_transpose2d_without_bias(g: Graph) -> str:
    """ConvTranspose without a bias."""
    return g.batchnorm(g.conv_transpose(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4), bias=False), g.n(4))


@folds()
def grouped_conv_transpose(g: Graph) -> str:
    """ConvTranspose in two groups: the weight's second axis counts the channels of one group."""
    return g.batchnorm(g.conv_transpose(g.input(g.n(6), g.n(7), g.n(5)), g.n(6), g.n(8), group=2), g.n(8))


@folds()
def depthwise_conv_transpose(g: Graph) -> str:
    """ConvTranspose with a group for each channel: the weight's second axis is 1."""
    conv = g.conv_transpose(g.input(g.n(3), g.n(7), g.n(5)), g.n(3), g.n(3), group=g.n(3), strides=[2, 2])
    return g.batchnorm(conv, g.n(3))
