"""Traps about the numbers: statistics of the batch, constants that are none, and parameters that make no finite map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.bank.case import keeps
from benchmarks.bank.graph import EPS, Graph, batchnorm_parameters

BATCH = 3
STATISTICS = ("next_mean", "next_var")


@keeps(reason="train")
def training_mode(g: Graph) -> str:
    """BatchNorm in training mode normalises with its batch; nobody reads its other outputs."""
    return g.op("Sigmoid", _in_training_mode(g))


@keeps(reason="train")
def training_mode_with_statistics(g: Graph) -> str:
    """BatchNorm in training mode whose running statistics are outputs of the model."""
    normal = _in_training_mode(g)
    g.outputs.extend(STATISTICS)
    return g.op("Sigmoid", normal)


def _in_training_mode(g: Graph) -> str:
    """Conv and BatchNorm in training mode, which has three outputs."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4))
    normal = g.batchnorm(conv, g.n(4), training_mode=1)
    g.nodes[-1].output.extend(STATISTICS)
    return normal


@keeps(batches=(BATCH,))
def bias_for_each_instance(g: Graph) -> str:
    """Gemm with a bias of shape (M, 1): one for each instance, none for each output."""
    inputs = g.input(g.n(6)), g.weight(g.n(6), g.n(5)), g.weight(BATCH, 1)
    return g.op("Sigmoid", g.batchnorm(g.op("Gemm", *inputs), g.n(5)))


@keeps(batches=(BATCH,))
def bias_for_each_value(g: Graph) -> str:
    """Gemm with a bias of shape (M, N)."""
    inputs = g.input(g.n(6)), g.weight(g.n(6), g.n(5)), g.weight(BATCH, g.n(5))
    return g.op("Sigmoid", g.batchnorm(g.op("Gemm", *inputs), g.n(5)))


@keeps(reason="constant")
def weight_is_an_input(g: Graph) -> str:
    """Gemm whose weight is an input of the model."""
    dense = g.op("Gemm", g.input(g.n(6)), g.input(g.n(6), g.n(5), batch=None))
    return g.op("Sigmoid", g.batchnorm(dense, g.n(5)))


@keeps(reason="constant")
def scale_is_an_input(g: Graph) -> str:
    """BatchNorm whose γ is an input of the model."""
    normal = g.batchnorm(g.gemm(g.input(g.n(6)), g.n(6), g.n(5)), g.n(5))
    g.nodes[-1].input[1] = g.input(g.n(5), batch=None)
    return g.op("Sigmoid", normal)


@keeps(reason="overrid|caller|input")
def weight_may_be_overridden(g: Graph) -> str:
    """Gemm whose weight a caller may override: an initializer that is an input too, from IR version 4 on."""
    dense = g.gemm(g.input(g.n(6)), g.n(6), g.n(5))
    g.overridable.add(g.nodes[-1].input[1])
    return g.op("Sigmoid", g.batchnorm(dense, g.n(5)))


@keeps(reason="overrid|caller|input")
def mean_may_be_overridden(g: Graph) -> str:
    """BatchNorm whose mean a caller may override."""
    normal = g.batchnorm(g.gemm(g.input(g.n(6)), g.n(6), g.n(5)), g.n(5))
    g.overridable.add("bn.mean")
    return g.op("Sigmoid", normal)


def _dense_and_batchnorm(g: Graph, what: str, value: float) -> str:
    """Gemm and BatchNorm, where the first channel's parameter is `value`."""
    dense, parameters = g.gemm(g.input(g.n(6)), g.n(6), g.n(5)), batchnorm_parameters(g.draw, g.n(5))
    parameters[what] = _with_first(parameters[what], value)
    inputs = [g.constant(values, f"bn.{name}") for name, values in parameters.items()]
    return g.op("BatchNormalization", dense, *inputs, name="bn", epsilon=EPS)


def _with_first(values: NDArray[np.float64], value: float) -> NDArray[np.float64]:
    return np.concatenate([[value], values[1:]])


@keeps(reason="finite|NaN|nan")
def variance_is_nan(g: Graph) -> str:
    """A variance that is no number."""
    return _dense_and_batchnorm(g, "var", np.nan)


@keeps(reason="finite|inf")
def scale_is_infinite(g: Graph) -> str:
    """A γ that is infinite."""
    return _dense_and_batchnorm(g, "scale", np.inf)


@keeps(reason="negative")
def variance_is_negative(g: Graph) -> str:
    """A variance below zero, as E[x²] − E[x]² computed in float32 leaves it."""
    return _dense_and_batchnorm(g, "var", -0.5)


@keeps()
def statistics_for_each_element(g: Graph) -> str:
    """A BatchNorm of opset 7 with `spatial` = 0, whose parameters have the shape of an instance."""
    g.opset = 7
    shape = (g.n(4), g.n(6) - 2, g.n(5) - 2)
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4))
    flat = batchnorm_parameters(g.draw, int(np.prod(shape)))
    inputs = [g.constant(values.reshape(shape), f"bn.{name}") for name, values in flat.items()]
    return g.op("Sigmoid", g.op("BatchNormalization", conv, *inputs, name="bn", spatial=0))
