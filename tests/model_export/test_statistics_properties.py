"""Properties of the statistics, on random blocks and random networks, against oracles in higher precision.

Networks and data are in float64, so that what is compared is the algorithm and not the rounding of activations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from model_export.statistics import FrozenStatistics, estimate_statistics, merge
from model_export.statistics.values import block_statistics

# A few roundings of float64, 1e-16 each, in units of the largest value (its square, for variances).
MERGED = 1e-12
# Roundings of float64 through a few layers; a BatchNorm behind a channel that hardly varies amplifies them 300 times.
MEASURED = 1e-9
NUM_CHANNELS, IMAGE = 4, (3, 5, 5)

Make = Callable[[], nn.Module]

seeds = st.integers(0, 2**32 - 1)


def normal(shape: tuple[int, ...], seed: int, mean: float = 2.0, deviation: float = 3.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(mean, deviation, size=shape))


def oracle(values: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and biased variance of axis 1, two passes in long double, rounded at the end."""
    by_channel = np.moveaxis(values.numpy().astype(np.longdouble), 1, -1).reshape(-1, values.shape[1])
    mean = by_channel.mean(axis=0)
    return mean.astype(np.float64), ((by_channel - mean) ** 2).mean(axis=0).astype(np.float64)


def assert_close(found: FrozenStatistics, expected: FrozenStatistics, scale: float) -> None:
    assert found.num_values == expected.num_values
    np.testing.assert_allclose(found.mean, expected.mean, rtol=0, atol=MERGED * scale)
    np.testing.assert_allclose(found.var, expected.var, rtol=0, atol=MERGED * scale**2)


# Merging

# Blocks of very different sizes and places: what a merge must weigh.
blocks = st.builds(
    lambda size, seed, mean, deviation: normal((size, 2), seed, mean, deviation),
    st.integers(1, 30),
    seeds,
    st.floats(-1e4, 1e4),
    st.floats(0, 1e2),
)


def _scale(*tensors: torch.Tensor) -> float:
    return max(1.0, *(float(tensor.abs().max()) for tensor in tensors))


@given(blocks, blocks)
def test_merging_goes_either_way_round(first: torch.Tensor, second: torch.Tensor) -> None:
    a, b = block_statistics(first), block_statistics(second)
    assert_close(merge(a, b), merge(b, a), _scale(first, second))


@given(blocks, blocks, blocks)
def test_merging_may_be_bracketed_in_any_way(first: torch.Tensor, second: torch.Tensor, third: torch.Tensor) -> None:
    a, b, c = (block_statistics(block) for block in (first, second, third))
    assert_close(merge(merge(a, b), c), merge(a, merge(b, c)), _scale(first, second, third))


@given(blocks, blocks)
def test_a_merge_is_what_both_blocks_are_together(first: torch.Tensor, second: torch.Tensor) -> None:
    together = torch.cat([first, second])
    mean, var = oracle(together)
    expected = FrozenStatistics(mean=mean, var=var, num_values=len(together))
    assert_close(merge(block_statistics(first), block_statistics(second)), expected, _scale(together))


@given(blocks, st.integers(1, 5))
def test_merging_a_block_with_itself_changes_only_the_count(block: torch.Tensor, times: int) -> None:
    one = block_statistics(block)
    merged = one
    for _ in range(times):
        merged = merge(merged, one)
    expected = FrozenStatistics(mean=one.mean, var=one.var, num_values=len(block) * (times + 1))
    assert_close(merged, expected, _scale(block))


@given(st.lists(st.integers(1, 4), min_size=0, max_size=3), st.integers(1, 5), st.integers(1, 3), seeds)
def test_the_channels_are_on_axis_1_whatever_follows(rest: list[int], num: int, channels: int, seed: int) -> None:
    values = normal((num, channels, *rest), seed)
    mean, var = oracle(values)
    expected = FrozenStatistics(mean=mean, var=var, num_values=num * int(np.prod(rest)))
    assert_close(block_statistics(values), expected, _scale(values))


# Measuring networks

vector_layers: st.SearchStrategy[Make] = st.sampled_from(
    [
        lambda: nn.BatchNorm1d(NUM_CHANNELS),
        lambda: nn.BatchNorm1d(NUM_CHANNELS, affine=False, eps=1e-3),
        lambda: nn.Linear(NUM_CHANNELS, NUM_CHANNELS),
        nn.ReLU,
        nn.ELU,
        nn.Tanh,
        lambda: nn.Dropout(0.5),
    ]
)
image_layers: st.SearchStrategy[Make] = st.sampled_from(
    [
        lambda: nn.BatchNorm2d(NUM_CHANNELS),
        lambda: nn.Conv2d(NUM_CHANNELS, NUM_CHANNELS, 3, padding=1),
        lambda: nn.Conv2d(NUM_CHANNELS, NUM_CHANNELS, 1, groups=2, bias=False),
        nn.SiLU,
        nn.ReLU,
        lambda: nn.Dropout2d(0.5),
        lambda: nn.AvgPool2d(2, stride=1, padding=1),
    ]
)


@st.composite
def vector_networks(draw: st.DrawFn) -> nn.Sequential:
    """BatchNorms anywhere, in training mode as training leaves a network, with weights and averages of a past life."""
    torch.manual_seed(draw(seeds))
    layers = [make() for make in draw(st.lists(vector_layers, min_size=1, max_size=6))]
    return _lived_in(nn.Sequential(*layers, nn.BatchNorm1d(NUM_CHANNELS), nn.Linear(NUM_CHANNELS, 2)))


@st.composite
def image_networks(draw: st.DrawFn) -> nn.Sequential:
    """The same over images, and over vectors behind them."""
    torch.manual_seed(draw(seeds))
    first = nn.Conv2d(IMAGE[0], NUM_CHANNELS, draw(st.integers(1, 3)))
    layers = [make() for make in draw(st.lists(image_layers, max_size=4))]
    head = [nn.BatchNorm2d(NUM_CHANNELS), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(NUM_CHANNELS)]
    return _lived_in(nn.Sequential(first, *layers, *head))


def _lived_in(network: nn.Sequential) -> nn.Sequential:
    for layer in network:
        if isinstance(layer, _BatchNorm):
            layer.running_mean = torch.randn(layer.num_features)
            layer.running_var = torch.rand(layer.num_features) + 0.5
            if layer.affine:
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
    return network.double().train()


@torch.no_grad()
def front_to_back(network: nn.Sequential, data: torch.Tensor) -> dict[str, FrozenStatistics]:
    """The oracle: all data at once, layer by layer, each BatchNorm written out, Dropout left out."""
    found = {}
    for name, layer in network.named_children():
        if isinstance(layer, _BatchNorm):
            mean, var = oracle(data)
            found[name] = FrozenStatistics(mean=mean, var=var, num_values=data.numel() // data.shape[1])
            data = _normalise(layer, data, found[name])
        elif not isinstance(layer, nn.Dropout | nn.Dropout2d):
            data = layer(data)
    return found


def _normalise(layer: _BatchNorm, data: torch.Tensor, statistics: FrozenStatistics) -> torch.Tensor:
    shape = (1, -1, *[1] * (data.ndim - 2))
    mean, var = (torch.from_numpy(values).reshape(shape) for values in (statistics.mean, statistics.var))
    normalised = (data - mean) / (var + layer.eps).sqrt()
    return normalised * layer.weight.reshape(shape) + layer.bias.reshape(shape) if layer.affine else normalised


def assert_measured(network: nn.Sequential, data: torch.Tensor, batch_size: int) -> None:
    expected = front_to_back(network, data)
    found = estimate_statistics(network, data, batch_size=batch_size)
    assert list(found) == list(expected)
    for name, statistics in expected.items():
        assert found[name].num_values == statistics.num_values
        np.testing.assert_allclose(found[name].mean, statistics.mean, rtol=MEASURED, atol=MEASURED)
        np.testing.assert_allclose(found[name].var, statistics.var, rtol=MEASURED, atol=MEASURED)


# No deadline: the first example pays for what torch loads when it traces.
@settings(max_examples=30, deadline=None)
@given(vector_networks(), st.integers(2, 40), st.integers(1, 50), seeds)
def test_what_is_measured_is_what_walking_through_the_layers_finds(
    network: nn.Sequential, num: int, batch_size: int, seed: int
) -> None:
    assert_measured(network, normal((num, NUM_CHANNELS), seed), batch_size)


@settings(max_examples=20, deadline=None)
@given(image_networks(), st.integers(2, 12), st.integers(1, 15), seeds)
def test_images_are_measured_over_instances_and_positions(
    network: nn.Sequential, num: int, batch_size: int, seed: int
) -> None:
    assert_measured(network, normal((num, *IMAGE), seed), batch_size)


@settings(max_examples=20, deadline=None)
@given(vector_networks(), st.lists(st.integers(1, 50), min_size=2, max_size=2, unique=True), seeds)
def test_neither_batch_size_nor_order_nor_mode_makes_a_difference(
    network: nn.Sequential, sizes: list[int], seed: int
) -> None:
    data = normal((40, NUM_CHANNELS), seed)
    one = estimate_statistics(network.train(), data, batch_size=sizes[0])
    other = estimate_statistics(network.eval(), data.flip(0), batch_size=sizes[1])
    for name, statistics in one.items():
        np.testing.assert_allclose(other[name].mean, statistics.mean, rtol=MEASURED, atol=MEASURED)
        np.testing.assert_allclose(other[name].var, statistics.var, rtol=MEASURED, atol=MEASURED)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 600), seeds)
def test_a_variance_of_a_hundredth_around_a_mean_of_a_thousand_is_right_to_nine_digits(
    batch_size: int, seed: int
) -> None:
    data = normal((512, NUM_CHANNELS), seed, mean=1000.0, deviation=0.1)
    mean, var = oracle(data)
    found = estimate_statistics(nn.Sequential(nn.BatchNorm1d(NUM_CHANNELS)).double(), data, batch_size=batch_size)["0"]
    assert var == pytest.approx(0.01, rel=0.5)
    np.testing.assert_allclose(found.mean, mean, rtol=MERGED)
    np.testing.assert_allclose(found.var, var, rtol=MEASURED)
