"""Traps about padding: zeros that come in after the BatchNorm have no shift, so that a shift can not pass them."""

from __future__ import annotations

import numpy as np

from benchmarks.bank.case import keeps
from benchmarks.bank.graph import Graph


def _normal(g: Graph, channels: int, *, positive: bool = False) -> str:
    return g.batchnorm(g.input(channels, g.n(7), g.n(5)), channels, positive=positive)


@keeps(reason="pad")
def padded_conv(g: Graph) -> str:
    """BatchNorm with a shift, then a Conv with pads."""
    return g.conv(_normal(g, g.n(3)), g.n(3), g.n(4), pads=[1, 1, 1, 1])


@keeps(reason="pad")
def automatically_padded_conv(g: Graph) -> str:
    """BatchNorm with a shift, then a Conv with auto_pad."""
    return g.conv(_normal(g, g.n(3)), g.n(3), g.n(4), auto_pad="SAME_LOWER")


@keeps(reason="pad")
def conv_padded_at_one_end(g: Graph) -> str:
    """BatchNorm with a shift, then a Conv that pads one side only."""
    return g.conv(_normal(g, g.n(3)), g.n(3), g.n(4), pads=[0, 0, 0, 1])


@keeps()
def conv_transpose(g: Graph) -> str:
    """BatchNorm with a shift, then ConvTranspose, to whose borders fewer pixels contribute."""
    return g.conv_transpose(_normal(g, g.n(3)), g.n(3), g.n(4))


@keeps()
def conv_transpose_kernel_equals_stride(g: Graph) -> str:
    """BatchNorm with a shift, then ConvTranspose without overlap: each output sees another weight."""
    return g.conv_transpose(_normal(g, g.n(3)), g.n(3), g.n(4), (2, 2), strides=[2, 2])


@keeps(reason="pad")
def average_pool_counts_padding(g: Graph) -> str:
    """BatchNorm with a shift, AveragePool that counts its zeros, Conv."""
    normal = _normal(g, g.n(3))
    pooled = g.op("AveragePool", normal, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    return g.conv(pooled, g.n(3), g.n(4), (2, 2))


@keeps(reason="pad")
def behind_average_pool_that_counts_padding(g: Graph) -> str:
    """Conv, AveragePool that counts its zeros, BatchNorm with a shift."""
    conv = g.conv(g.input(g.n(3), g.n(7), g.n(6)), g.n(3), g.n(4), (2, 2))
    pooled = g.op("AveragePool", conv, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    return g.op("Sigmoid", g.batchnorm(pooled, g.n(4)))


@keeps()
def behind_pad_with_zeros(g: Graph) -> str:
    """Conv, Pad with zeros, BatchNorm with a shift: the frame has the shift too, and it is no Conv's output."""
    conv = g.conv(g.input(g.n(3), g.n(7), g.n(6)), g.n(3), g.n(4), (2, 2))
    return g.op("Sigmoid", g.batchnorm(g.op("Pad", conv, g.ints(0, 0, 1, 1, 0, 0, 1, 1)), g.n(4)))


@keeps()
def pad_with_zeros_then_conv(g: Graph) -> str:
    """BatchNorm with a shift, Pad with zeros, Conv without padding of its own."""
    padded = g.op("Pad", _normal(g, g.n(3)), g.ints(0, 0, 1, 1, 0, 0, 1, 1))
    return g.conv(padded, g.n(3), g.n(4))


@keeps()
def resize_with_a_frame(g: Graph) -> str:
    """Conv, Resize that crops beyond the image and fills with zeros, BatchNorm."""
    conv = g.conv(g.input(g.n(3), g.n(7), g.n(6)), g.n(3), g.n(4), (2, 2))
    g.weights["scales"] = np.array([1, 1, 2, 2], np.float32)
    roi = g.constant([0, 0, -0.5, -0.5, 1, 1, 1.5, 1.5])
    how = "tf_crop_and_resize"
    resized = g.op("Resize", conv, roi, "scales", mode="linear", coordinate_transformation_mode=how)
    return g.op("Sigmoid", g.batchnorm(resized, g.n(4)))
