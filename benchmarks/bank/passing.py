"""BatchNorm that reaches the layer before it through what stands between: s·f(y) + t = f(s·y + t) must hold for f.

It holds for averages and copies of values of the same channel; for MaxPool where s > 0; for Relu and its kin where
s > 0 and t = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.bank.case import folds
from benchmarks.bank.graph import Graph


def _through(g: Graph, between: Callable[[str, int], str], *, positive: bool = False, zero_shift: bool = False) -> str:
    """Conv, what stands between, BatchNorm."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(7)), g.n(3), g.n(5))
    return g.batchnorm(between(conv, g.n(5)), g.n(5), positive=positive, zero_shift=zero_shift)


@folds()
def average_pool(g: Graph) -> str:
    """AveragePool without padding."""
    return _through(g, lambda y, _: g.op("AveragePool", y, kernel_shape=[2, 2], strides=[1, 2]))


@folds()
def average_pool_counting_no_padding(g: Graph) -> str:
    """AveragePool with padding that it does not count."""
    return _through(g, lambda y, _: g.op("AveragePool", y, kernel_shape=[2, 2], pads=[1, 1, 0, 1], count_include_pad=0))


@folds()
def global_average_pool(g: Graph) -> str:
    """GlobalAveragePool."""
    return _through(g, lambda y, _: g.op("GlobalAveragePool", y))


@folds()
def reduce_mean(g: Graph) -> str:
    """ReduceMean over space, which leaves two axes."""
    return _through(g, lambda y, _: g.op("ReduceMean", y, g.ints(2, 3), keepdims=0))


@folds()
def max_pool(g: Graph) -> str:
    """MaxPool, padded, before a BatchNorm with γ > 0: the padding never wins."""
    return _through(g, lambda y, _: g.op("MaxPool", y, kernel_shape=[2, 2], pads=[1, 1, 1, 1]), positive=True)


@folds()
def global_max_pool(g: Graph) -> str:
    """GlobalMaxPool before a BatchNorm with γ > 0."""
    return _through(g, lambda y, _: g.op("GlobalMaxPool", y), positive=True)


@folds()
def relu(g: Graph) -> str:
    """Relu before a BatchNorm that only scales, with γ > 0."""
    return _through(g, lambda y, _: g.op("Relu", y), positive=True, zero_shift=True)


@folds()
def leaky_relu(g: Graph) -> str:
    """LeakyRelu before a BatchNorm that only scales, with γ > 0."""
    return _through(g, lambda y, _: g.op("LeakyRelu", y, alpha=0.1), positive=True, zero_shift=True)


@folds()
def prelu(g: Graph) -> str:
    """PRelu with a slope for each channel before a BatchNorm that only scales, with γ > 0."""
    return _through(g, lambda y, c: g.op("PRelu", y, g.weight(c, 1, 1)), positive=True, zero_shift=True)


@folds()
def slice_of_space(g: Graph) -> str:
    """Slice on an axis of space."""
    return _through(g, lambda y, _: g.op("Slice", y, g.ints(0), g.ints(2), g.ints(2)))


@folds()
def slice_of_channels(g: Graph) -> str:
    """Slice on the channels: those that are cut away go nowhere."""
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(7)), g.n(3), g.n(5))
    return g.batchnorm(g.op("Slice", conv, g.ints(1), g.ints(3), g.ints(1)), 2)


@folds()
def split_of_channels(g: Graph) -> str:
    """Split on the channels: one part has a BatchNorm, the other is read as it was."""
    half = g.n(6) // 2
    conv = g.conv(g.input(g.n(3), g.n(7), g.n(5)), g.n(3), 2 * half)
    left, right = _halves(g, conv, half)
    return g.op("Mul", g.op("Sigmoid", left), g.batchnorm(right, half))


@folds("bn1", "bn2")
def split_with_two_batchnorms(g: Graph) -> str:
    """Split on the channels: each part has a BatchNorm of its own."""
    half = g.n(6) // 2
    left, right = _halves(g, g.conv(g.input(g.n(3), g.n(7), g.n(5)), g.n(3), 2 * half), half)
    return g.op("Mul", g.op("Sigmoid", g.batchnorm(left, half, "bn1")), g.batchnorm(right, half, "bn2"))


@folds()
def split_to_a_sequence(g: Graph) -> str:
    """torch.split as torch's exporter first writes it: a sequence of parts, one of which has a BatchNorm."""
    half = g.n(6) // 2
    conv = g.conv(g.input(g.n(3), g.n(7), g.n(5)), g.n(3), 2 * half)
    parts = g.op("SplitToSequence", conv, g.ints(half, half), axis=1)
    left, right = (g.op("SequenceAt", parts, g.op("Squeeze", g.ints(k))) for k in range(2))
    return g.op("Mul", g.op("Sigmoid", left), g.batchnorm(g.op("Identity", right), half))


@folds()
def resize_nearest(g: Graph) -> str:
    """Resize that copies the nearest pixel."""
    attributes: dict[str, Any] = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return _through(g, lambda y, _: g.op("Resize", y, "", _twice(g), **attributes))


@folds()
def resize_linear(g: Graph) -> str:
    """Resize that weighs neighbours with weights that add up to one."""
    return _through(g, lambda y, _: g.op("Resize", y, "", _twice(g), mode="linear"))


@folds()
def pad_reflect(g: Graph) -> str:
    """Pad with reflected pixels of the same channel."""
    return _through(g, lambda y, _: g.op("Pad", y, g.ints(0, 0, 1, 1, 0, 0, 0, 1), mode="reflect"))


@folds()
def pad_edge(g: Graph) -> str:
    """Pad with the pixels at the edge."""
    return _through(g, lambda y, _: g.op("Pad", y, g.ints(0, 0, 1, 0, 0, 0, 2, 1), mode="edge"))


@folds()
def expand_of_space(g: Graph) -> str:
    """Expand of one pixel to many; the channels stay apart."""
    c = g.n(5)
    conv = g.conv(g.input(g.n(3), 1, 1), g.n(3), c, (1, 1))
    return g.batchnorm(g.op("Expand", conv, g.ints(1, c, g.n(4), g.n(2))), c)


@folds(perhaps=("between",))
def times_a_constant(g: Graph) -> str:
    """Mul by one number for each channel."""
    return _through(g, lambda y, c: g.op("Mul", y, g.weight(c, 1, 1), name="between"))


@folds(perhaps=("between",))
def plus_a_constant(g: Graph) -> str:
    """Add of one number for each channel."""
    return _through(g, lambda y, c: g.op("Add", g.weight(1, c, 1, 1), y, name="between"))


@folds(perhaps=("between",))
def minus_a_constant(g: Graph) -> str:
    """Sub of one number for each channel."""
    return _through(g, lambda y, c: g.op("Sub", y, g.weight(c, 1, 1), name="between"))


@folds(perhaps=("between",))
def divided_by_a_constant(g: Graph) -> str:
    """Div by one number for each channel."""
    values = np.linspace(-2.0, -0.5, g.n(5)).reshape(1, -1, 1, 1)
    return _through(g, lambda y, _: g.op("Div", y, g.constant(values), name="between"))


@folds()
def pool_and_dropout(g: Graph) -> str:
    """Several in a row: AveragePool, Dropout, Flatten, of one pixel."""
    c = g.n(5)
    conv = g.conv(g.input(g.n(3), g.n(6), g.n(6)), g.n(3), c)
    pooled = g.op("Dropout", g.op("AveragePool", conv, kernel_shape=[g.n(6) - 2, g.n(6) - 2]))
    return g.batchnorm(g.op("Flatten", pooled), c)


def _halves(g: Graph, value: str, half: int) -> list[str]:
    return g.ops("Split", value, g.ints(half, half), num_outputs=2, axis=1)


def _twice(g: Graph) -> str:
    """Scales are float32 in a model of any dtype."""
    g.weights["scales"] = np.array([1, 1, 2, 2], np.float32)
    return "scales"
