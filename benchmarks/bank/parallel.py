"""Branches that run side by side and are added: a BatchNorm without a layer of its own goes into its neighbour's.

W x + (s·x + t) = (W + diag s) x + t: the identity is a convolution too.
"""

from __future__ import annotations

from benchmarks.bank.case import folds
from benchmarks.bank.graph import Graph


@folds("bn3", "bn1", "bn_same", ops={"Conv": 1, "Add": 0})
def repvgg_block(g: Graph) -> str:
    """Conv of 3 and Conv of 1, each with BatchNorm, and a BatchNorm of the input, summed: one Conv is enough."""
    c, x = g.n(3), g.input(g.n(3), g.n(6), g.n(5))
    large = g.batchnorm(g.conv(x, c, c, bias=False, pads=[1, 1, 1, 1]), c, "bn3")
    small = g.batchnorm(g.conv(x, c, c, (1, 1), bias=False), c, "bn1")
    both = g.op("Add", large, small)
    return g.op("Relu", g.op("Add", both, g.batchnorm(x, c, "bn_same")))


@folds("bn3", "bn1")
def repvgg_block_with_stride(g: Graph) -> str:
    """The block without the branch of the input, where strides and channels change."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    large = g.batchnorm(g.conv(x, g.n(3), g.n(4), bias=False, pads=[1, 1, 1, 1], strides=[2, 2]), g.n(4), "bn3")
    small = g.batchnorm(g.conv(x, g.n(3), g.n(4), (1, 1), bias=False, strides=[2, 2]), g.n(4), "bn1")
    return g.op("Relu", g.op("Add", large, small))


@folds("bn3a", "bn3b", "bn1", "bn_same", ops={"Conv": 1, "Add": 0})
def mobileone_block(g: Graph) -> str:
    """The depthwise block of MobileOne: two Convs of 3, one of 1 and the input, each with BatchNorm, summed."""
    c, x = g.n(3), g.input(g.n(3), g.n(6), g.n(5))
    total = g.batchnorm(x, c, "bn_same")
    for name, kernel, pad in (("bn1", 1, 0), ("bn3a", 3, 1), ("bn3b", 3, 1)):
        conv = g.conv(x, c, c, (kernel, kernel), bias=False, pads=[pad] * 4, group=c)
        total = g.op("Add", g.batchnorm(conv, c, name), total)
    return g.op("Relu", total)


@folds("bn3", "bn1", "bn_same", ops={"Conv": 1, "Add": 0, "ReduceSum": 0})
def branches_that_are_stacked_and_summed(g: Graph) -> str:
    """torch.stack(branches).sum(0): the branches are laid side by side along a new axis, and summed over it."""
    c, x = g.n(3), g.input(g.n(3), g.n(6), g.n(5))
    large = g.batchnorm(g.conv(x, c, c, bias=False, pads=[1, 1, 1, 1]), c, "bn3")
    small = g.batchnorm(g.conv(x, c, c, (1, 1), bias=False), c, "bn1")
    branches = [g.op("Unsqueeze", value, g.ints(0)) for value in (small, g.batchnorm(x, c, "bn_same"), large)]
    stack = g.op("Concat", *branches, axis=0)
    return g.op("Relu", g.op("ReduceSum", stack, g.ints(0), keepdims=0))


@folds()
def residual_of_a_dense_layer(g: Graph) -> str:
    """BatchNorm of x plus Gemm of x."""
    x = g.input(g.n(5))
    return g.op("Sigmoid", g.op("Add", g.batchnorm(x, g.n(5)), g.gemm(x, g.n(5), g.n(5))))


@folds()
def residual_of_a_conv(g: Graph) -> str:
    """Conv of 1 of x plus BatchNorm of x."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    return g.op("Sigmoid", g.op("Add", g.conv(x, g.n(3), g.n(3), (1, 1)), g.batchnorm(x, g.n(3))))
