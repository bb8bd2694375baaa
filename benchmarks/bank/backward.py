"""BatchNorm behind the dense layer whose output it normalises: s·(x W + c) + t = x (W s) + (s c + t)."""

from __future__ import annotations

from benchmarks.bank.case import folds
from benchmarks.bank.graph import Graph


@folds()
def gemm_then_batchnorm(g: Graph) -> str:
    """Gemm with a bias, then BatchNorm."""
    return g.batchnorm(g.gemm(g.input(g.n(6)), g.n(6), g.n(5)), g.n(5))


@folds()
def gemm_without_bias(g: Graph) -> str:
    """Gemm without a bias, which then needs one."""
    return g.batchnorm(g.gemm(g.input(g.n(6)), g.n(6), g.n(5), bias=False), g.n(5))


@folds()
def gemm_attributes(g: Graph) -> str:
    """Gemm with alpha, beta and transB."""
    inputs = g.input(g.n(6)), g.weight(g.n(5), g.n(6)), g.weight(g.n(5))
    return g.batchnorm(g.op("Gemm", *inputs, alpha=0.5, beta=-2.0, transB=1), g.n(5))


@folds()
def gemm_beta_zero(g: Graph) -> str:
    """Gemm with beta = 0, whose bias counts for nothing until the BatchNorm brings one."""
    inputs = g.input(g.n(6)), g.weight(g.n(6), g.n(5)), g.weight(g.n(5))
    return g.batchnorm(g.op("Gemm", *inputs, alpha=-1.5, beta=0.0), g.n(5))


@folds()
def gemm_trans_a(g: Graph) -> str:
    """Gemm with transA, behind a Transpose that undoes it."""
    turned = g.op("Transpose", g.input(g.n(6)), perm=[1, 0])
    return g.batchnorm(g.op("Gemm", turned, g.weight(g.n(6), g.n(5)), g.weight(g.n(5)), transA=1), g.n(5))


@folds()
def gemm_scalar_bias(g: Graph) -> str:
    """Gemm with one number as bias, to be spread before anything is added to it."""
    inputs = g.input(g.n(6)), g.weight(g.n(6), g.n(5)), g.constant(1.5)
    return g.batchnorm(g.op("Gemm", *inputs), g.n(5))


@folds()
def gemm_bias_of_one(g: Graph) -> str:
    """Gemm with a bias of shape (1)."""
    inputs = g.input(g.n(6)), g.weight(g.n(6), g.n(5)), g.constant([1.5])
    return g.batchnorm(g.op("Gemm", *inputs, beta=2.0), g.n(5))


@folds()
def gemm_row_bias(g: Graph) -> str:
    """Gemm with a bias of shape (1, N)."""
    inputs = g.input(g.n(6)), g.weight(g.n(6), g.n(5)), g.weight(1, g.n(5))
    return g.batchnorm(g.op("Gemm", *inputs), g.n(5))


@folds()
def gemm_then_relu_after(g: Graph) -> str:
    """Gemm, BatchNorm, Relu: the BatchNorm's output is not the model's."""
    return g.op("Relu", g.batchnorm(g.gemm(g.input(g.n(6)), g.n(6), g.n(5)), g.n(5)))


@folds()
def matmul_then_batchnorm(g: Graph) -> str:
    """MatMul of two axes, then BatchNorm."""
    return g.batchnorm(g.op("MatMul", g.input(g.n(6)), g.weight(g.n(6), g.n(5))), g.n(5))


@folds()
def matmul_add(g: Graph) -> str:
    """MatMul and Add, a dense layer in two nodes."""
    product = g.op("MatMul", g.input(g.n(6)), g.weight(g.n(6), g.n(5)))
    return g.batchnorm(g.op("Add", product, g.weight(g.n(5))), g.n(5))


@folds()
def matmul_add_constant_left(g: Graph) -> str:
    """MatMul and Add with the constant as the Add's first input, as torch writes it."""
    product = g.op("MatMul", g.input(g.n(6)), g.weight(g.n(6), g.n(5)))
    return g.batchnorm(g.op("Add", g.weight(1, g.n(5)), product), g.n(5))


@folds("bn1", "bn2")
def two_dense_layers(g: Graph) -> str:
    """Two dense layers, each with its BatchNorm, and an activation between."""
    first = g.batchnorm(g.gemm(g.input(g.n(6)), g.n(6), g.n(5)), g.n(5), "bn1")
    return g.batchnorm(g.gemm(g.op("Elu", first), g.n(5), g.n(3)), g.n(3), "bn2")


@folds()
def identity_and_dropout_between(g: Graph) -> str:
    """Conv, Identity, Dropout, BatchNorm: what is nothing at inference stands between."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4))
    return g.batchnorm(g.op("Dropout", g.op("Identity", conv)), g.n(4))


@folds("bn1", "bn2")
def two_batchnorms_behind_a_conv(g: Graph) -> str:
    """Conv, BatchNorm, BatchNorm: the second meets the Conv only once the first is gone."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4))
    return g.batchnorm(g.batchnorm(conv, g.n(4), "bn1"), g.n(4), "bn2")
