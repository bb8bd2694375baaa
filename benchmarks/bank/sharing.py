"""Constants that are shared, tied, spelled as nodes, computed from other constants, or listed among the inputs."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from benchmarks.bank.case import folds
from benchmarks.bank.graph import EPS, Graph, batchnorm_parameters


@folds("bn1", "bn2")
def shared_weight(g: Graph) -> str:
    """Two Convs with one weight, each with a BatchNorm of its own: each needs its own weight now."""
    x, weight = g.input(g.n(3), g.n(6), g.n(5)), g.weight(g.n(4), g.n(3), 3, 3)
    first, second = g.op("Conv", x, weight), g.op("Conv", g.op("Relu", x), weight)
    return g.op("Add", g.op("Relu", g.batchnorm(first, g.n(4), "bn1")), g.batchnorm(second, g.n(4), "bn2"))


@folds()
def weight_shared_with_a_plain_layer(g: Graph) -> str:
    """Two Gemms with one weight; only one has a BatchNorm behind it."""
    x, weight = g.input(g.n(6)), g.weight(g.n(6), g.n(5))
    plain = g.op("Gemm", x, weight)
    return g.op("Mul", plain, g.op("Sigmoid", g.batchnorm(g.op("Gemm", x, weight), g.n(5))))


@folds("bn1", "bn2")
def shared_batchnorm_parameters(g: Graph) -> str:
    """Two Convs, each followed by a BatchNorm with the very same four tensors."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    first = g.batchnorm(g.conv(x, g.n(3), g.n(4)), g.n(4), "bn1")
    inputs = [g.conv(x, g.n(3), g.n(4), bias=False), *(f"bn1.{what}" for what in ("scale", "offset", "mean", "var"))]
    second = g.op("BatchNormalization", *inputs, name="bn2", epsilon=EPS)
    return g.op("Mul", g.op("Sigmoid", first), g.op("Sigmoid", second))


@folds()
def tied_bias_and_mean(g: Graph) -> str:
    """One tensor is the layer's bias and the BatchNorm's mean, as exporters that remove duplicates write it."""
    tied = g.weight(g.n(5))
    dense = g.op("Gemm", g.input(g.n(6)), g.weight(g.n(6), g.n(5)), tied)
    var = g.constant(batchnorm_parameters(g.draw, g.n(5))["var"])
    inputs = [dense, g.weight(g.n(5)), g.weight(g.n(5)), tied, var]
    return g.op("BatchNormalization", *inputs, name="bn", epsilon=EPS)


@folds()
def one_zero_vector_for_all(g: Graph) -> str:
    """One vector of zeros is bias, offset and mean at once."""
    zeros, var = g.constant(np.zeros(g.n(5))), g.constant(np.linspace(0.25, 4, g.n(5)))
    dense = g.op("Gemm", g.input(g.n(6)), g.weight(g.n(6), g.n(5)), zeros)
    other = g.op("Gemm", g.op("Relu", dense), g.weight(g.n(5), g.n(5)), zeros)
    return g.op("BatchNormalization", other, g.weight(g.n(5)), zeros, zeros, var, name="bn")


@folds()
def parameters_in_constant_nodes(g: Graph) -> str:
    """Weights and parameters are Constant nodes, as old exporters write them."""
    output = g.batchnorm(g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4)), g.n(4))
    constants = [
        helper.make_node("Constant", [], [name], name=f"make_{name}", value=numpy_helper.from_array(values))
        for name, values in g.weights.items()
    ]
    g.weights.clear()
    g.nodes[:0] = constants
    return output


@folds()
def bias_as_the_exporter_spells_zero(g: Graph) -> str:
    """A Conv without a bias as torch exports it raw: a bias of CastLike(0, x), spread to the weight's first size."""
    x, weight = g.input(g.n(3), g.n(6), g.n(5)), g.weight(g.n(4), g.n(3), 3, 3)
    zero = g.op("CastLike", g.op("Constant", value_float=0.0), x)
    size = g.op("Shape", weight, start=0, end=1)
    return g.batchnorm(g.op("Conv", x, weight, g.op("Expand", zero, size)), g.n(4))


@folds()
def bias_spread_by_slice_of_shape(g: Graph) -> str:
    """The same with Slice and Concat around the weight's shape."""
    x, weight = g.input(g.n(3), g.n(6), g.n(5)), g.weight(g.n(4), g.n(3), 3, 3)
    zero = g.op("CastLike", g.op("Constant", value_float=0.0), x)
    size = g.op("Slice", g.op("Shape", weight), g.ints(0), g.ints(1), g.ints(0))
    return g.batchnorm(g.op("Conv", x, weight, g.op("Expand", zero, g.op("Concat", size, axis=0))), g.n(4))


@folds()
def transposed_weight(g: Graph) -> str:
    """The weight is a Transpose of a constant, as torch writes a Linear."""
    weight = g.op("Transpose", g.weight(g.n(5), g.n(6)), perm=[1, 0])
    return g.batchnorm(g.op("MatMul", g.input(g.n(6)), weight), g.n(5))


@folds()
def computed_weight(g: Graph) -> str:
    """The weight is normalised by nodes that read constants only, as weight norm exports it."""
    values = g.weight(g.n(4), g.n(3), 3, 3)
    norm = g.op("Sqrt", g.op("ReduceSum", g.op("Mul", values, values), g.ints(1, 2, 3), keepdims=1))
    weight = g.op("Mul", g.op("Div", values, norm), g.weight(g.n(4), 1, 1, 1))
    return g.batchnorm(g.op("Conv", g.input(g.n(3), g.n(6), g.n(5)), weight), g.n(4))


@folds()
def parameters_behind_identity(g: Graph) -> str:
    """Each parameter of the BatchNorm is an Identity of an initializer, as removed duplicates are written."""
    dense = g.gemm(g.input(g.n(6)), g.n(6), g.n(5))
    parameters = batchnorm_parameters(g.draw, g.n(5))
    inputs = [g.op("Identity", g.constant(values, what)) for what, values in parameters.items()]
    return g.op("BatchNormalization", dense, *inputs, name="bn", epsilon=EPS)


@folds()
def initializers_among_the_inputs(g: Graph) -> str:
    """A file of IR version 3, in which every initializer had to be listed as an input as well."""
    g.ir_version, g.opset = 3, 8
    output = g.batchnorm(g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4)), g.n(4))
    g.overridable.update(g.weights)
    return output
