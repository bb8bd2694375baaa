"""BatchNorm before the layer that reads it: (s·x + t) W + c = x (s W) + (t W + c), where nothing pads with zeros."""

from __future__ import annotations

from benchmarks.bank.case import folds
from benchmarks.bank.graph import Graph


@folds()
def batchnorm_then_gemm(g: Graph) -> str:
    """BatchNorm, then Gemm with a bias."""
    return g.gemm(g.batchnorm(g.input(g.n(6)), g.n(6)), g.n(6), g.n(5))


@folds()
def then_gemm_without_bias(g: Graph) -> str:
    """BatchNorm, then Gemm without a bias, which then needs one."""
    return g.gemm(g.batchnorm(g.input(g.n(6)), g.n(6)), g.n(6), g.n(5), bias=False)


@folds()
def then_gemm_attributes(g: Graph) -> str:
    """BatchNorm, then Gemm with alpha, beta and transB."""
    inputs = g.batchnorm(g.input(g.n(6)), g.n(6)), g.weight(g.n(5), g.n(6)), g.weight(g.n(5))
    return g.op("Gemm", *inputs, alpha=0.5, beta=-2.0, transB=1)


@folds()
def then_gemm_beta_zero(g: Graph) -> str:
    """BatchNorm, then Gemm with beta = 0."""
    inputs = g.batchnorm(g.input(g.n(6)), g.n(6)), g.weight(g.n(6), g.n(5)), g.weight(g.n(5))
    return g.op("Gemm", *inputs, alpha=-1.5, beta=0.0)


@folds()
def then_gemm_scalar_bias(g: Graph) -> str:
    """BatchNorm, then Gemm with one number as bias."""
    inputs = g.batchnorm(g.input(g.n(6)), g.n(6)), g.weight(g.n(6), g.n(5)), g.constant(1.5)
    return g.op("Gemm", *inputs, beta=2.0)


@folds()
def then_matmul(g: Graph) -> str:
    """BatchNorm, then MatMul of two axes."""
    return g.op("MatMul", g.batchnorm(g.input(g.n(6)), g.n(6)), g.weight(g.n(6), g.n(5)))


@folds()
def then_matmul_add(g: Graph) -> str:
    """BatchNorm, then MatMul and Add."""
    product = g.op("MatMul", g.batchnorm(g.input(g.n(6)), g.n(6)), g.weight(g.n(6), g.n(5)))
    return g.op("Add", product, g.weight(1, g.n(5)))


@folds()
def then_conv(g: Graph) -> str:
    """BatchNorm, then Conv without padding."""
    return g.conv(g.batchnorm(g.input(g.n(3), g.n(6), g.n(5)), g.n(3)), g.n(3), g.n(4))


@folds()
def then_conv_without_bias(g: Graph) -> str:
    """BatchNorm, then Conv without padding and bias, with strides and dilations."""
    normal = g.batchnorm(g.input(g.n(3), g.n(6), g.n(7)), g.n(3))
    return g.conv(normal, g.n(3), g.n(4), (2, 2), bias=False, strides=[1, 2], dilations=[2, 1])


@folds()
def then_conv_auto_pad_valid(g: Graph) -> str:
    """BatchNorm, then Conv whose auto_pad says that it does not pad."""
    return g.conv(g.batchnorm(g.input(g.n(3), g.n(6), g.n(5)), g.n(3)), g.n(3), g.n(4), auto_pad="VALID")


@folds()
def then_conv1d(g: Graph) -> str:
    """BatchNorm, then Conv over one axis."""
    return g.conv(g.batchnorm(g.input(g.n(3), g.n(6)), g.n(3)), g.n(3), g.n(4), (3,))


@folds()
def then_conv3d(g: Graph) -> str:
    """BatchNorm, then Conv over three axes."""
    normal = g.batchnorm(g.input(g.n(3), g.n(6), g.n(5), g.n(4)), g.n(3))
    return g.conv(normal, g.n(3), g.n(2), (2, 2, 2))


@folds()
def then_grouped_conv(g: Graph) -> str:
    """BatchNorm, then Conv in two groups."""
    return g.conv(g.batchnorm(g.input(g.n(6), g.n(7), g.n(5)), g.n(6)), g.n(6), g.n(8), group=2)


@folds()
def then_depthwise_conv(g: Graph) -> str:
    """BatchNorm, then Conv with a group for each channel."""
    return g.conv(g.batchnorm(g.input(g.n(3), g.n(7), g.n(5)), g.n(3)), g.n(3), g.n(3), group=g.n(3))


@folds()
def then_padded_conv_without_shift(g: Graph) -> str:
    """BatchNorm that only scales (β = μ·γ/σ), then a padded Conv: zeros stay zeros."""
    normal = g.batchnorm(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), zero_shift=True)
    return g.conv(normal, g.n(3), g.n(4), pads=[1, 1, 1, 1])


@folds()
def then_conv_transpose_without_shift(g: Graph) -> str:
    """BatchNorm that only scales, then ConvTranspose in two groups."""
    normal = g.batchnorm(g.input(g.n(6), g.n(7), g.n(5)), g.n(6), zero_shift=True)
    return g.conv_transpose(normal, g.n(6), g.n(8), group=2, strides=[2, 2])


@folds()
def then_two_gemms(g: Graph) -> str:
    """BatchNorm that two dense layers read."""
    normal = g.batchnorm(g.input(g.n(6)), g.n(6))
    left, right = g.gemm(normal, g.n(6), g.n(5)), g.gemm(normal, g.n(6), g.n(3))
    return g.op("Concat", g.op("Relu", left), right, axis=1)


@folds()
def then_conv_and_pooled_gemm(g: Graph) -> str:
    """BatchNorm that a Conv and, behind a pool, a dense layer read."""
    normal = g.batchnorm(g.input(g.n(3), g.n(6), g.n(5)), g.n(3))
    g.outputs.append(g.gemm(g.op("Flatten", g.op("GlobalAveragePool", normal)), g.n(3), g.n(2)))
    return g.conv(normal, g.n(3), g.n(4), (1, 1))


@folds("bn1", "bn2")
def the_books_network(g: Graph) -> str:
    """Flatten, BatchNorm, dense, Relu, BatchNorm, dense, Softmax."""
    flat = g.op("Flatten", g.input(g.n(3), g.n(2)))
    hidden = g.gemm(g.batchnorm(flat, g.n(3) * g.n(2), "bn1"), g.n(3) * g.n(2), g.n(5))
    return g.op("Softmax", g.gemm(g.batchnorm(g.op("Relu", hidden), g.n(5), "bn2"), g.n(5), g.n(4)))


@folds()
def between_relu_and_conv(g: Graph) -> str:
    """Conv, Relu, BatchNorm, Conv without padding: only the second Conv can take it."""
    hidden = g.op("Relu", g.conv(g.input(g.n(3), g.n(7), g.n(6)), g.n(3), g.n(4), (2, 2)))
    return g.conv(g.batchnorm(hidden, g.n(4)), g.n(4), g.n(5), (2, 2))


@folds()
def then_gru(g: Graph) -> str:
    """BatchNorm of features, turned to sequence first, then GRU without a bias: the bias of its inputs takes it."""
    normal = g.batchnorm(g.input(g.n(3), g.n(5)), g.n(3))
    turned, hidden = g.op("Transpose", normal, perm=[2, 0, 1]), g.n(2)
    return g.op("GRU", turned, g.weight(1, 3 * hidden, g.n(3)), g.weight(1, 3 * hidden, hidden), hidden_size=hidden)


@folds()
def then_lstm(g: Graph) -> str:
    """BatchNorm of features, turned to sequence first, then LSTM with a bias."""
    normal = g.batchnorm(g.input(g.n(3), g.n(5)), g.n(3))
    turned, hidden = g.op("Transpose", normal, perm=[2, 0, 1]), g.n(2)
    weights = g.weight(1, 4 * hidden, g.n(3)), g.weight(1, 4 * hidden, hidden), g.weight(1, 8 * hidden)
    return g.op("LSTM", turned, *weights, hidden_size=hidden)


@folds()
def then_tokens_matmul(g: Graph) -> str:
    """BatchNorm of channels first, Transpose, MatMul of three axes: the channels are what is summed over."""
    turned = g.op("Transpose", g.batchnorm(g.input(g.n(3), g.n(6)), g.n(3)), perm=[0, 2, 1])
    return g.op("Add", g.op("MatMul", turned, g.weight(g.n(3), g.n(5))), g.weight(g.n(5)))
