"""Traps about axes: sizes agree, yet the BatchNorm's channels are not the layer's; equal sizes prove nothing."""

from __future__ import annotations

from benchmarks.bank.case import keeps
from benchmarks.bank.graph import Graph

BATCH = 3  # where the batch must be of one size


@keeps()
def matmul_on_tokens(g: Graph) -> str:
    """MatMul of three axes: the BatchNorm's channels are axis 1, the MatMul's outputs axis 2."""
    product = g.op("MatMul", g.input(g.n(5), g.n(6)), g.weight(g.n(6), g.n(3)))
    return g.op("Sigmoid", g.batchnorm(product, g.n(5)))


@keeps()
def before_matmul_on_tokens(g: Graph) -> str:
    """BatchNorm of axis 1, MatMul over axis 2."""
    normal = g.batchnorm(g.input(g.n(5), g.n(6)), g.n(5))
    return g.op("MatMul", normal, g.weight(g.n(6), g.n(3)))


@keeps(batches=(BATCH,))
def matmul_transposed(g: Graph) -> str:
    """MatMul of two axes, Transpose: now the channels are the instances."""
    outputs = BATCH if g.draw.square else 5
    product = g.op("MatMul", g.input(BATCH, g.n(6), batch=None), g.weight(g.n(6), outputs))
    return g.op("Sigmoid", g.batchnorm(g.op("Transpose", product, perm=[1, 0]), BATCH))


@keeps()
def matmul_reshaped(g: Graph) -> str:
    """MatMul of two axes, Reshape that deals columns and rows out anew over as many channels."""
    c = g.n(6)
    product = g.op("MatMul", g.input(g.n(5)), g.weight(g.n(5), c))
    return g.op("Sigmoid", g.batchnorm(g.op("Reshape", product, g.ints(1, c, -1)), c))


@keeps()
def reshape_that_mixes_before_gemm(g: Graph) -> str:
    """BatchNorm, Reshape of (batch, C, L) to (batch·L, C) without a Transpose, Gemm."""
    c = g.n(6)
    normal = g.batchnorm(g.input(c, g.n(5)), c)
    return g.gemm(g.op("Reshape", normal, g.ints(-1, c)), c, g.n(3))


@keeps()
def transpose_before_gemm(g: Graph) -> str:
    """BatchNorm, Transpose of instances and features, Gemm over the instances, with transA to make it fit."""
    normal = g.batchnorm(g.input(BATCH, g.n(6), batch=None), g.n(6))
    return g.op("Gemm", normal, g.weight(BATCH, g.n(5)), transA=1)


@keeps()
def concat_of_one_conv_with_itself(g: Graph) -> str:
    """One Conv twice, side by side: its channels would need two scales at once."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4))
    normal = g.batchnorm(g.op("Concat", conv, conv, axis=1), 2 * g.n(4))
    return g.op("Sigmoid", normal)


@keeps()
def conv_with_channels_and_space_turned(g: Graph) -> str:
    """Conv, Transpose of channels and height: the BatchNorm's channels are the Conv's rows."""
    height = g.n(8)
    turned = g.op("Transpose", g.conv(g.input(g.n(3), height, g.n(6)), g.n(3), g.n(5), (1, 1)), perm=[0, 2, 1, 3])
    return g.op("Sigmoid", g.batchnorm(turned, height))
