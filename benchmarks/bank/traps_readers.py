"""Traps about who else reads a value: another reader would see the folded numbers where it expects the raw ones."""

from __future__ import annotations

from benchmarks.bank.case import keeps
from benchmarks.bank.graph import Graph


@keeps()
def layer_read_twice(g: Graph) -> str:
    """Conv that the BatchNorm and an activation read."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4))
    return g.op("Mul", g.op("Sigmoid", g.batchnorm(conv, g.n(4))), g.op("Relu", conv))


@keeps("bn1", "bn2")
def layer_with_two_batchnorms(g: Graph) -> str:
    """One Conv that two BatchNorms read."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4))
    left, right = g.batchnorm(conv, g.n(4), "bn1"), g.batchnorm(conv, g.n(4), "bn2")
    return g.op("Mul", g.op("Sigmoid", left), g.op("Sigmoid", right))


@keeps(reason="output")
def layer_is_an_output(g: Graph) -> str:
    """Conv whose output is the model's too."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(5)), g.n(3), g.n(4))
    g.outputs.append(conv)
    return g.op("Sigmoid", g.batchnorm(conv, g.n(4)))


@keeps(reason="output")
def batchnorm_is_an_output(g: Graph) -> str:
    """BatchNorm of the input that a Gemm reads and that is the model's output too."""
    normal = g.batchnorm(g.input(g.n(6)), g.n(6))
    g.outputs.append(normal)
    return g.gemm(normal, g.n(6), g.n(5))


@keeps()
def one_reader_can_not_absorb(g: Graph) -> str:
    """BatchNorm that a Gemm and a Sigmoid read."""
    normal = g.batchnorm(g.input(g.n(6)), g.n(6))
    g.outputs.append(g.op("Sigmoid", normal))
    return g.gemm(normal, g.n(6), g.n(5))


@keeps()
def one_reader_pads(g: Graph) -> str:
    """BatchNorm that two Convs read, of which one pads."""
    normal = g.batchnorm(g.input(g.n(3), g.n(6), g.n(5)), g.n(3))
    g.outputs.append(g.conv(normal, g.n(3), g.n(4), pads=[1, 1, 1, 1]))
    return g.conv(normal, g.n(3), g.n(4))


@keeps()
def read_as_a_bias(g: Graph) -> str:
    """BatchNorm that a Gemm reads as its input and as its bias."""
    normal = g.batchnorm(g.input(g.n(5)), g.n(5))
    return g.op("Gemm", normal, g.weight(g.n(5), g.n(5)), g.op("Sigmoid", normal))


@keeps()
def alone(g: Graph) -> str:
    """A BatchNorm and nothing else."""
    return g.batchnorm(g.input(g.n(4), g.n(6), g.n(5)), g.n(4))


@keeps()
def pooled_value_is_read_elsewhere(g: Graph) -> str:
    """Conv, AveragePool, BatchNorm; an activation reads the Conv before the pool."""
    conv = g.conv(g.input(g.n(3), g.n(7), g.n(6)), g.n(3), g.n(4), (2, 2))
    g.outputs.append(g.op("Sigmoid", conv))
    return g.op("Sigmoid", g.batchnorm(g.op("AveragePool", conv, kernel_shape=[2, 2]), g.n(4)))
