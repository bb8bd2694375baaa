"""BatchNorm behind several values that meet, and BatchNorms that meet each other."""

from __future__ import annotations

from benchmarks.bank.case import case, folds
from benchmarks.bank.graph import Graph


@folds()
def sum_of_two_convs(g: Graph) -> str:
    """Two Convs and their sum: both take the scale, one takes the shift."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    left, right = g.conv(x, g.n(3), g.n(4), pads=[1, 1, 1, 1]), g.conv(x, g.n(3), g.n(4), (1, 1), bias=False)
    return g.batchnorm(g.op("Add", left, right), g.n(4))


@folds()
def sum_of_conv_and_gemm_behind_a_view(g: Graph) -> str:
    """A Conv of every pixel and a dense layer for the whole image, added."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    pooled = g.op("Flatten", g.op("GlobalAveragePool", g.op("Relu", x)))
    dense = g.op("Unsqueeze", g.gemm(pooled, g.n(3), g.n(4)), g.ints(2, 3))
    return g.batchnorm(g.op("Add", g.conv(x, g.n(3), g.n(4), (1, 1)), dense), g.n(4))


@folds()
def concat_of_two_convs(g: Graph) -> str:
    """Two Convs side by side: each takes its own channels' part."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    left, right = g.conv(x, g.n(3), g.n(4)), g.conv(x, g.n(3), g.n(2), bias=False)
    return g.batchnorm(g.op("Concat", left, right, axis=1), g.n(4) + g.n(2))


@folds()
def concat_over_space(g: Graph) -> str:
    """Two Convs one above the other: each takes the whole map."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    left, right = g.conv(x, g.n(3), g.n(4)), g.conv(g.op("Relu", x), g.n(3), g.n(4), bias=False)
    return g.batchnorm(g.op("Concat", left, right, axis=2), g.n(4))


@folds("bn0", "bn")
def concat_of_conv_and_batchnorm(g: Graph) -> str:
    """Conv beside Conv and BatchNorm, and a BatchNorm over both."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    left = g.conv(x, g.n(3), g.n(4))
    right = g.batchnorm(g.conv(x, g.n(3), g.n(2)), g.n(2), "bn0")
    return g.batchnorm(g.op("Concat", left, right, axis=1), g.n(4) + g.n(2))


@folds()
def concat_of_pooled_convs(g: Graph) -> str:
    """Two Convs, each behind an AveragePool of its own, side by side."""
    x = g.input(g.n(3), g.n(6), g.n(7))
    parts = [g.op("AveragePool", g.conv(x, g.n(3), g.n(4)), kernel_shape=[2, 2]) for _ in range(2)]
    return g.batchnorm(g.op("Concat", *parts, axis=1), 2 * g.n(4))


@folds()
def sum_of_two_dense_layers(g: Graph) -> str:
    """Two dense layers of two inputs, added."""
    left, right = g.gemm(g.input(g.n(6)), g.n(6), g.n(5)), g.gemm(g.input(g.n(3)), g.n(3), g.n(5))
    return g.batchnorm(g.op("Add", left, right), g.n(5))


@case({"bn1": "merged", "bn2": "kept"}, interchangeable=True)
def two_batchnorms_alone(g: Graph) -> str:
    """Two BatchNorms in a row with no layer near: one of them is enough."""
    x = g.op("Sigmoid", g.input(g.n(4), g.n(6), g.n(5)))
    return g.op("Sigmoid", g.batchnorm(g.batchnorm(x, g.n(4), "bn1"), g.n(4), "bn2"))


@folds("bn1", "bn2")
def two_batchnorms_before_a_gemm(g: Graph) -> str:
    """Two BatchNorms in a row before a dense layer: the first meets it once the second is gone."""
    normal = g.batchnorm(g.batchnorm(g.input(g.n(6)), g.n(6), "bn1"), g.n(6), "bn2")
    return g.gemm(normal, g.n(6), g.n(4))
