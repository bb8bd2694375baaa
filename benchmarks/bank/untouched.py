"""Normalisations that are no BatchNorms: they depend on the instance, have no entry in the ledger, and stay."""

from __future__ import annotations

from benchmarks.bank.case import case
from benchmarks.bank.graph import Graph


@case({}, ops={"LayerNormalization": 1})
def layer_normalization(g: Graph) -> str:
    """LayerNormalization behind a MatMul."""
    product = g.op("MatMul", g.input(g.n(3), g.n(6)), g.weight(g.n(6), g.n(5)))
    return g.op("Sigmoid", g.op("LayerNormalization", product, g.weight(g.n(5)), g.weight(g.n(5))))


@case({}, ops={"Mul": 1, "Add": 2})
def layer_normalization_in_parts(g: Graph) -> str:
    """LayerNormalization as old exporters write it, ending in Mul and Add with constants."""
    x = g.input(g.n(3), g.n(5))
    centred = g.op("Sub", x, g.op("ReduceMean", x, g.ints(-1), keepdims=1))
    var = g.op("ReduceMean", g.op("Pow", centred, g.constant(2.0)), g.ints(-1), keepdims=1)
    normal = g.op("Div", centred, g.op("Sqrt", g.op("Add", var, g.constant(1e-5))))
    return g.op("Sigmoid", g.op("Add", g.op("Mul", normal, g.weight(g.n(5))), g.weight(g.n(5))))


@case({}, ops={"InstanceNormalization": 1})
def instance_normalization(g: Graph) -> str:
    """InstanceNormalization behind a Conv."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4))
    return g.op("Sigmoid", g.op("InstanceNormalization", conv, g.weight(g.n(4)), g.weight(g.n(4))))


@case({}, ops={"GroupNormalization": 1})
def group_normalization(g: Graph) -> str:
    """GroupNormalization behind a Conv."""
    g.opset = 21
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4))
    normal = g.op("GroupNormalization", conv, g.weight(g.n(4)), g.weight(g.n(4)), num_groups=2)
    output = g.op("Sigmoid", normal)
    g.stated[output] = ("batch", g.n(4), g.n(6) - 2, g.n(5) - 2)
    return output


@case({}, ops={"Gemm": 2})
def no_batchnorm_at_all(g: Graph) -> str:
    """Two dense layers and an activation: nothing to do."""
    return g.gemm(g.op("Relu", g.gemm(g.input(g.n(6)), g.n(6), g.n(5))), g.n(5), g.n(3))
