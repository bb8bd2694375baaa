"""BatchNorms that are written as Sub, Div, Mul and Add with constants: frozen ones of detection, and Caffe's Scale."""

from __future__ import annotations

import numpy as np

from benchmarks.bank.case import folds
from benchmarks.bank.graph import Graph

NOTHING_LEFT = {"Mul": 0, "Add": 0, "Sub": 0, "Div": 0}


def _conv(g: Graph) -> tuple[str, int]:
    return g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4), bias=False), g.n(4)


@folds("chain", ops=NOTHING_LEFT)
def frozen_mul_add(g: Graph) -> str:
    """Conv, Mul, Add, with constants of shape (1, C, 1, 1): the frozen BatchNorm of torchvision."""
    conv, c = _conv(g)
    scaled = g.op("Mul", conv, g.weight(1, c, 1, 1), name="chain")
    return g.op("Add", scaled, g.weight(1, c, 1, 1))


@folds("chain", ops=NOTHING_LEFT)
def frozen_mul_add_of_three_axes(g: Graph) -> str:
    """The same with constants of shape (C, 1, 1), on the left."""
    conv, c = _conv(g)
    scaled = g.op("Mul", g.weight(c, 1, 1), conv, name="chain")
    return g.op("Add", g.weight(c, 1, 1), scaled)


@folds("chain", ops=NOTHING_LEFT)
def frozen_sub_mul_add(g: Graph) -> str:
    """Conv, Sub, Mul, Add."""
    conv, c = _conv(g)
    centred = g.op("Sub", conv, g.weight(1, c, 1, 1), name="chain")
    return g.op("Add", g.op("Mul", centred, g.weight(1, c, 1, 1)), g.weight(1, c, 1, 1))


@folds("chain", ops=NOTHING_LEFT)
def frozen_sub_div_mul_add(g: Graph) -> str:
    """Conv, Sub, Div, Mul, Add: the formula as it is written in the paper."""
    conv, c = _conv(g)
    centred = g.op("Sub", conv, g.weight(c, 1, 1), name="chain")
    sigma = g.constant(np.geomspace(0.25, 4.0, c).reshape(-1, 1, 1))
    scaled = g.op("Mul", g.op("Div", centred, sigma), g.weight(c, 1, 1))
    return g.op("Add", scaled, g.weight(c, 1, 1))


@folds("bn", perhaps=("scale",), ops=NOTHING_LEFT)
def caffe_batchnorm_and_scale(g: Graph) -> str:
    """Conv, BatchNorm, Mul, Add: Caffe's BatchNorm has no γ and β, its Scale layer does."""
    conv, c = _conv(g)
    scaled = g.op("Mul", g.batchnorm(conv, c), g.weight(c, 1, 1), name="scale")
    return g.op("Add", scaled, g.weight(c, 1, 1))


@folds("chain", ops={"Mul": 0, "Sub": 0, "Div": 0})
def frozen_behind_a_dense_layer(g: Graph) -> str:
    """Gemm, Mul, Add, with constants of shape (N)."""
    dense = g.gemm(g.input(g.n(6)), g.n(6), g.n(5))
    return g.op("Relu", g.op("Add", g.op("Mul", dense, g.weight(g.n(5)), name="chain"), g.weight(1, g.n(5))))
