"""Folds where the numbers are wide or the dtype is narrow: variances from 1e-6 to 1e8, float16, bfloat16."""

from __future__ import annotations

import numpy as np

from benchmarks.bank.case import folds, keeps
from benchmarks.bank.graph import EPS, Graph


@folds()
def wide_variances(g: Graph) -> str:
    """Variances from 1e-6 to 1e8 behind a Gemm whose columns are as wide: the outputs are of usual size."""
    k, n = g.n(6), g.n(5)
    var = 10.0 ** g.draw.rng.uniform(-6, 8, size=n)
    sigma = np.sqrt(var)
    weight = g.constant(g.draw.rng.normal(size=(k, n)) * sigma)
    dense = g.op("Gemm", g.input(k), weight, g.constant(g.draw.rng.normal(size=n) * sigma))
    parameters = [g.weight(n), g.weight(n), g.constant(g.draw.rng.normal(size=n) * sigma), g.constant(var)]
    return g.op("BatchNormalization", dense, *parameters, name="bn", epsilon=EPS)


@folds()
def wide_variances_before(g: Graph) -> str:
    """Variances from 1e-6 to 1e8 before a Gemm, with γ as wide: the gains are of usual size."""
    k = g.n(6)
    var = 10.0 ** g.draw.rng.uniform(-6, 8, size=k)
    scale = g.constant(np.sqrt(var) * np.where(np.arange(k) % 2, -1.0, 1.0))
    parameters = [scale, g.weight(k), g.weight(k), g.constant(var)]
    normal = g.op("BatchNormalization", g.input(k), *parameters, name="bn", epsilon=EPS)
    return g.gemm(normal, k, g.n(5))


@folds(dtype="float16")
def conv_in_float16(g: Graph) -> str:
    """Conv and BatchNorm in float16."""
    return g.batchnorm(g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4), bias=False), g.n(4))


@folds(dtype="bfloat16", runs_in_runtime=False)
def gemm_in_bfloat16(g: Graph) -> str:
    """Gemm and BatchNorm in bfloat16, which ONNX Runtime does not run on a CPU."""
    return g.batchnorm(g.gemm(g.input(g.n(6)), g.n(6), g.n(5)), g.n(5))


@keeps(dtype="float16", reason="float16|overflow")
def overflow_in_float16(g: Graph) -> str:
    """The product of weight and gain, 120000, is no float16, though every value that is computed is one."""
    k, n = g.n(6), g.n(5)
    small = g.op("Clip", g.input(k), g.constant(-0.01), g.constant(0.01))
    dense = g.op("Gemm", small, g.constant(np.full((k, n), 2.0)))
    zeros, ones = g.constant(np.zeros(n)), g.constant(np.ones(n))
    normal = g.op("BatchNormalization", dense, g.constant(np.full(n, 6e4)), zeros, zeros, ones, name="bn", epsilon=EPS)
    return g.op("Sigmoid", normal)
