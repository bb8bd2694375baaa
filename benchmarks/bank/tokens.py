"""BatchNorm on tokens: products of three axes, tables of embeddings, and the layout nodes around them."""

from __future__ import annotations

from onnx import TensorProto

from benchmarks.bank.case import folds
from benchmarks.bank.draw import Draw
from benchmarks.bank.graph import Graph

VOCABULARY = 7


@folds()
def linear_on_tokens(g: Graph) -> str:
    """MatMul of three axes between two Transposes: the BatchNorm's channels are the MatMul's outputs."""
    product = g.op("MatMul", g.input(g.n(3), g.n(6)), g.weight(g.n(6), g.n(5)))
    normal = g.batchnorm(g.op("Transpose", product, perm=[0, 2, 1]), g.n(5))
    return g.op("Transpose", normal, perm=[0, 2, 1])


@folds()
def linear_with_bias_on_tokens(g: Graph) -> str:
    """The same with a bias added."""
    product = g.op("MatMul", g.input(g.n(3), g.n(6)), g.weight(g.n(6), g.n(5)))
    biased = g.op("Add", product, g.weight(g.n(5)))
    normal = g.batchnorm(g.op("Transpose", biased, perm=[0, 2, 1]), g.n(5))
    return g.op("Transpose", normal, perm=[0, 2, 1])


@folds()
def tokens_as_rows(g: Graph) -> str:
    """MatMul of three axes, flattened to rows for the BatchNorm and back, as LeViT does."""
    product = g.op("MatMul", g.input(g.n(3), g.n(6)), g.weight(g.n(6), g.n(5)))
    normal = g.batchnorm(g.op("Reshape", product, g.ints(-1, g.n(5))), g.n(5))
    return g.op("Reshape", normal, g.ints(-1, g.n(3), g.n(5)))


@folds()
def tokens_as_rows_and_back_by_shape(g: Graph) -> str:
    """The same, going back to the shape that was read before."""
    product = g.op("MatMul", g.input(g.n(3), g.n(6)), g.weight(g.n(6), g.n(5)))
    normal = g.batchnorm(g.op("Reshape", product, g.ints(-1, g.n(5))), g.n(5))
    return g.op("Reshape", normal, g.op("Shape", product))


@folds()
def constant_on_the_left(g: Graph) -> str:
    """MatMul with the constant on the left: its rows are the BatchNorm's channels."""
    product = g.op("MatMul", g.weight(g.n(5), g.n(6)), g.input(g.n(6), g.n(3)))
    return g.batchnorm(product, g.n(5))


@folds()
def embedding_transposed(g: Graph) -> str:
    """A table of embeddings, Transpose, BatchNorm: each column of the table is a channel."""
    ids = g.input(g.n(3), elem_type=TensorProto.INT64)
    rows = g.op("Gather", g.weight(VOCABULARY, g.n(5)), ids)
    return g.batchnorm(g.op("Transpose", rows, perm=[0, 2, 1]), g.n(5))


@folds()
def embedding_of_one(g: Graph) -> str:
    """One embedding for each instance, then BatchNorm."""
    rows = g.op("Gather", g.weight(_rows(g.draw), g.n(5)), g.input(elem_type=TensorProto.INT64))
    return g.batchnorm(rows, g.n(5))


@folds()
def dense_unsqueezed(g: Graph) -> str:
    """Gemm, Unsqueeze, BatchNorm, Squeeze."""
    wide = g.op("Unsqueeze", g.gemm(g.input(g.n(6)), g.n(6), g.n(5)), g.ints(2))
    return g.op("Squeeze", g.batchnorm(wide, g.n(5)), g.ints(2))


@folds()
def dense_as_image(g: Graph) -> str:
    """Gemm, Reshape to channels and pixels, BatchNorm, as generators begin: each output has its channel's scale."""
    c, h, w = g.n(3), g.n(2), g.n(4)
    image = g.op("Reshape", g.gemm(g.input(g.n(6)), g.n(6), c * h * w), g.ints(-1, c, h, w))
    return g.batchnorm(image, c)


@folds()
def conv_flattened_to_two_axes(g: Graph) -> str:
    """Conv, GlobalAveragePool, Flatten, BatchNorm of two axes."""
    pooled = g.op("GlobalAveragePool", g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4)))
    return g.batchnorm(g.op("Flatten", pooled), g.n(4))


@folds()
def channels_last_and_back(g: Graph) -> str:
    """Conv, Transpose to channels last and back, BatchNorm."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4))
    last = g.op("Transpose", conv, perm=[0, 2, 3, 1])
    return g.batchnorm(g.op("Transpose", last, perm=[0, 3, 1, 2]), g.n(4))


@folds()
def patches_as_tokens_and_back(g: Graph) -> str:
    """Conv, pixels flattened to one axis, BatchNorm over three axes."""
    c = g.n(5)
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), c)
    return g.batchnorm(g.op("Reshape", conv, g.ints(0, c, -1)), c)


def _rows(draw: Draw) -> int:
    return draw.size(VOCABULARY)
