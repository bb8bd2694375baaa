"""BatchNorm that reaches the layer behind it through what stands between, keeping account of which value is whose."""

from __future__ import annotations

from benchmarks.bank.case import folds
from benchmarks.bank.graph import Graph


def _normal(g: Graph, *, positive: bool = False, zero_shift: bool = False) -> str:
    """BatchNorm of an image of n(3) channels."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    return g.batchnorm(x, g.n(3), positive=positive, zero_shift=zero_shift)


@folds()
def flatten_gemm(g: Graph) -> str:
    """Flatten: each channel becomes as many columns as it has pixels."""
    flat = g.op("Flatten", _normal(g))
    return g.gemm(flat, g.n(3) * g.n(6) * g.n(5), g.n(4))


@folds()
def reshape_gemm(g: Graph) -> str:
    """Reshape that does what Flatten does."""
    columns = g.n(3) * g.n(6) * g.n(5)
    return g.gemm(g.op("Reshape", _normal(g), g.ints(-1, columns)), columns, g.n(4))


@folds()
def computed_reshape_matmul(g: Graph) -> str:
    """Reshape to a target that is put together from the input's shape, as exporters write it."""
    columns = g.n(3) * g.n(6) * g.n(5)
    normal = _normal(g)
    target = g.op("Concat", g.op("Shape", "x", start=0, end=1), g.ints(columns), axis=0)
    return g.op("MatMul", g.op("Reshape", normal, target), g.weight(columns, g.n(4)))


@folds()
def transpose_reshape_gemm(g: Graph) -> str:
    """Transpose to channels last, then Reshape: the channels alternate along the columns."""
    columns = g.n(3) * g.n(6) * g.n(5)
    turned = g.op("Transpose", _normal(g), perm=[0, 2, 3, 1])
    return g.gemm(g.op("Reshape", turned, g.ints(-1, columns)), columns, g.n(4))


@folds()
def global_average_pool_flatten_gemm(g: Graph) -> str:
    """GlobalAveragePool and Flatten, as classifiers end."""
    return g.gemm(g.op("Flatten", g.op("GlobalAveragePool", _normal(g))), g.n(3), g.n(4))


@folds()
def average_pool_conv(g: Graph) -> str:
    """AveragePool without padding, then Conv."""
    pooled = g.op("AveragePool", _normal(g), kernel_shape=[2, 2])
    return g.conv(pooled, g.n(3), g.n(4), (2, 2))


@folds()
def average_pool_counting_no_padding_conv(g: Graph) -> str:
    """AveragePool with padding that it does not count, then Conv."""
    pooled = g.op("AveragePool", _normal(g), kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=0)
    return g.conv(pooled, g.n(3), g.n(4), (2, 2))


@folds()
def max_pool_conv(g: Graph) -> str:
    """MaxPool behind a BatchNorm with γ > 0, then Conv."""
    pooled = g.op("MaxPool", _normal(g, positive=True), kernel_shape=[2, 2], pads=[1, 1, 1, 1])
    return g.conv(pooled, g.n(3), g.n(4), (2, 2))


@folds()
def reduce_mean_gemm(g: Graph) -> str:
    """ReduceMean over space, then Gemm."""
    return g.gemm(g.op("ReduceMean", _normal(g), g.ints(2, 3), keepdims=0), g.n(3), g.n(4))


@folds()
def relu_conv(g: Graph) -> str:
    """Relu behind a BatchNorm that only scales, with γ > 0, then a Conv without padding."""
    return g.conv(g.op("Relu", _normal(g, positive=True, zero_shift=True)), g.n(3), g.n(4))


@folds()
def relu_padded_conv(g: Graph) -> str:
    """The same before a padded Conv: nothing but the scale is carried."""
    hidden = g.op("Relu", _normal(g, positive=True, zero_shift=True))
    return g.conv(hidden, g.n(3), g.n(4), pads=[1, 1, 1, 1])


@folds()
def pad_reflect_conv(g: Graph) -> str:
    """Pad with reflected pixels, then Conv: no zeros come in."""
    padded = g.op("Pad", _normal(g), g.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    return g.conv(padded, g.n(3), g.n(4))


@folds()
def concat_gemm(g: Graph) -> str:
    """Concat with other features, then Gemm: only the BatchNorm's columns change."""
    normal = g.batchnorm(g.input(g.n(6)), g.n(6))
    features = g.op("Concat", g.op("Sigmoid", g.input(g.n(3))), normal, axis=1)
    return g.gemm(features, g.n(3) + g.n(6), g.n(5))


@folds()
def concat_conv(g: Graph) -> str:
    """Concat with other channels, then Conv, as dense blocks do."""
    channels = g.op("Concat", _normal(g), g.op("Sigmoid", "x"), axis=1)
    return g.conv(channels, 2 * g.n(3), g.n(4))


@folds()
def identity_dropout_gemm(g: Graph) -> str:
    """Identity and Dropout between BatchNorm and Gemm."""
    normal = g.batchnorm(g.input(g.n(6)), g.n(6))
    return g.gemm(g.op("Dropout", g.op("Identity", normal)), g.n(6), g.n(5))


@folds()
def unsqueeze_conv(g: Graph) -> str:
    """Unsqueeze from one axis of space to two, then Conv."""
    normal = g.batchnorm(g.input(g.n(3), g.n(6)), g.n(3))
    return g.conv(g.op("Unsqueeze", normal, g.ints(2)), g.n(3), g.n(4), (1, 3))


@folds()
def squeeze_gemm(g: Graph) -> str:
    """BatchNorm of images of one pixel, Squeeze, Gemm."""
    normal = g.batchnorm(g.input(g.n(3), 1, 1), g.n(3))
    return g.gemm(g.op("Squeeze", normal, g.ints(2, 3)), g.n(3), g.n(5))


@folds()
def slice_conv(g: Graph) -> str:
    """Slice on an axis of space, then Conv."""
    return g.conv(g.op("Slice", _normal(g), g.ints(1), g.ints(4), g.ints(2)), g.n(3), g.n(4), (2, 2))


@folds()
def slice_of_channels_gemm(g: Graph) -> str:
    """Slice on the channels, then Gemm: the columns have their own channels' scales."""
    normal = g.batchnorm(g.input(g.n(6)), g.n(6))
    return g.gemm(g.op("Slice", normal, g.ints(1), g.ints(3), g.ints(1)), 2, g.n(5))
