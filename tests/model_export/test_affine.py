"""The algebra against direct evaluation: apply the map, then the layer, one element at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_export.affine import Affine, Linear, absorb_before, absorb_behind, affine_of_batchnorm

ROUNDING = 1e-12  # float64, sums of at most a few dozen terms of size 1


def _linear(rng: np.random.Generator, groups: int, outputs: int, inputs: int, kernel: tuple[int, ...]) -> Linear:
    weight = rng.normal(size=(groups * outputs, inputs, *kernel))
    return Linear(weight, rng.normal(size=groups * outputs), groups)


def _affine(rng: np.random.Generator, channels: int) -> Affine:
    return Affine(rng.normal(size=channels), rng.normal(size=channels))


def _apply_affine(affine: Affine, x: np.ndarray) -> np.ndarray:
    return np.stack([affine.scale[c] * x[c] + affine.shift[c] for c in range(len(x))])


def _apply(linear: Linear, x: np.ndarray) -> np.ndarray:
    """One output position of a grouped convolution: `x` is (inputs, *kernel); loops, not the code under test."""
    outputs = np.empty(len(linear.weight))
    outputs_of_group, inputs_of_group = len(linear.weight) // linear.groups, linear.weight.shape[1]
    for o in range(len(outputs)):
        first = (o // outputs_of_group) * inputs_of_group
        outputs[o] = linear.bias[o] + (linear.weight[o] * x[first : first + inputs_of_group]).sum()
    return outputs


sizes = st.integers(1, 4)
kernels = st.sampled_from([(), (1,), (3,), (2, 3), (1, 2, 2)])
seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, groups=sizes, outputs=sizes, inputs=sizes, kernel=kernels)
def test_a_layer_that_absorbed_the_map_behind_it_answers_as_both_did(
    seed: int, groups: int, outputs: int, inputs: int, kernel: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    linear = _linear(rng, groups, outputs, inputs, kernel)
    affine = _affine(rng, groups * outputs)
    x = rng.normal(size=(groups * inputs, *kernel))
    expected = _apply_affine(affine, _apply(linear, x))
    assert np.allclose(_apply(absorb_behind(linear, affine), x), expected, rtol=ROUNDING, atol=ROUNDING)


@given(seed=seeds, groups=sizes, outputs=sizes, inputs=sizes, kernel=kernels)
def test_a_layer_that_absorbed_the_map_before_it_answers_as_both_did(
    seed: int, groups: int, outputs: int, inputs: int, kernel: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    linear = _linear(rng, groups, outputs, inputs, kernel)
    affine = _affine(rng, groups * inputs)
    x = rng.normal(size=(groups * inputs, *kernel))
    expected = _apply(linear, _apply_affine(affine, x))
    assert np.allclose(_apply(absorb_before(affine, linear), x), expected, rtol=ROUNDING, atol=ROUNDING)


@given(seed=seeds, channels=sizes, eps=st.floats(1e-8, 1e-1))
def test_a_frozen_batchnorm_is_its_scale_and_shift(seed: int, channels: int, eps: float) -> None:
    rng = np.random.default_rng(seed)
    gamma, beta, mean, x = rng.normal(size=(4, channels))
    var = rng.uniform(0.01, 100.0, size=channels)
    affine = affine_of_batchnorm(gamma, beta, mean, var, eps)
    expected = gamma * (x - mean) / np.sqrt(var + eps) + beta
    assert np.allclose(affine.scale * x + affine.shift, expected, rtol=ROUNDING, atol=1e-10)


@given(seed=seeds, channels=sizes)
def test_two_maps_in_a_row_are_one(seed: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    inner, outer, x = _affine(rng, channels), _affine(rng, channels), rng.normal(size=channels)
    both = inner.then(outer)
    expected = outer.scale * (inner.scale * x + inner.shift) + outer.shift
    assert np.allclose(both.scale * x + both.shift, expected, rtol=ROUNDING, atol=1e-10)


def test_a_map_that_is_the_same_along_an_axis_is_written_short_there() -> None:
    same_along_the_last = np.repeat([[1.0], [2.0]], 3, axis=1)
    short = Affine(same_along_the_last, np.zeros((2, 3))).compressed()
    assert (short.scale.shape, short.shift.shape) == ((2, 1), (1, 1))
    assert not short.varies_along(1)


def test_the_callers_arrays_are_not_written_into() -> None:
    rng = np.random.default_rng(0)
    linear, affine = _linear(rng, 1, 2, 2, ()), _affine(rng, 2)
    before = linear.weight.copy(), linear.bias.copy()
    absorb_behind(linear, affine)
    absorb_before(affine, linear)
    assert (linear.weight == before[0]).all()
    assert (linear.bias == before[1]).all()


@pytest.mark.parametrize("variance", [0.0, 1e-30])
def test_a_constant_channel_has_a_finite_gain(variance: float) -> None:
    one = np.ones(1)
    affine = affine_of_batchnorm(one, one, one, np.array([variance]), 1e-5)
    assert affine.scale[0] == pytest.approx(1 / np.sqrt(1e-5))
