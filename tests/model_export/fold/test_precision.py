"""A fold is computed in float64 and rounded once, to the dtype that the weight has: the oracle is written out here."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from model_export.fold import fold
from tests.model_export.fold.graphs import GraphBuilder

Array = NDArray[np.float64]
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
EPS = 2.0**-10  # is the same number in every dtype
LAST_PLACES = 4 * np.finfo(np.float64).eps  # in float64 the oracle rounds too, perhaps in another order
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)


def _wide(b: GraphBuilder, name: str) -> Array:
    return b.weights[name].astype(np.float64)


def _gain_and_shift(b: GraphBuilder, name: str) -> tuple[Array, Array]:
    scale, offset, mean, var = (_wide(b, f"{name}.{what}") for what in ("scale", "offset", "mean", "var"))
    gain = scale / np.sqrt(var + EPS)
    return gain, offset - mean * gain


def _assert_rounded_once(model: ir.Model, name: str, exact: Array, dtype: Any) -> None:
    """Bit for bit, but for float64, in which nothing is left to round.

    There it is right to the last places of the largest value: the smaller ones are sums of terms of that size, and in
    which order BLAS adds these depends on the processor.
    """
    weight = model.graph.initializers[name].const_value
    assert weight is not None
    found = weight.numpy()
    assert found.dtype == np.dtype(dtype)
    if dtype == np.float64:
        np.testing.assert_allclose(found, exact, rtol=LAST_PLACES, atol=LAST_PLACES * np.abs(exact).max())
    else:
        assert np.array_equal(found, exact.astype(dtype))


@by_dtype
def test_a_fold_into_the_layer_before_is_rounded_once(dtype: Any) -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=dtype)
    dense = b.node("Gemm", ["x", b.weight("w", 16, 8), b.weight("c", 8)], "dense")
    model = b.model((16,), [b.batchnorm(dense, 8, "bn", epsilon=EPS)])
    folded = fold(model).model
    gain, shift = _gain_and_shift(b, "bn")
    _assert_rounded_once(folded, "w", _wide(b, "w") * gain, dtype)
    _assert_rounded_once(folded, "c", _wide(b, "c") * gain + shift, dtype)


@by_dtype
def test_a_fold_into_the_layer_behind_is_rounded_once(dtype: Any) -> None:
    b = GraphBuilder(np.random.default_rng(1), dtype=dtype)
    inputs = [b.batchnorm("x", 16, "bn", epsilon=EPS), b.weight("w", 16, 8), b.weight("c", 8)]
    folded = fold(b.model((16,), [b.node("Gemm", inputs, "dense")])).model
    gain, shift = _gain_and_shift(b, "bn")
    _assert_rounded_once(folded, "w", gain[:, None] * _wide(b, "w"), dtype)
    _assert_rounded_once(folded, "c", _wide(b, "c") + shift @ _wide(b, "w"), dtype)


@by_dtype
def test_a_layer_that_takes_three_batchnorms_is_rounded_once_and_not_three_times(dtype: Any) -> None:
    b = GraphBuilder(np.random.default_rng(2), dtype=dtype)
    dense = b.node("Gemm", [b.batchnorm("x", 16, "bn0", epsilon=EPS), b.weight("w", 16, 8)], "dense")
    output = b.batchnorm(b.batchnorm(dense, 8, "bn1", epsilon=EPS), 8, "bn2", epsilon=EPS)
    folded = fold(b.model((16,), [output]))
    assert [entry.outcome for entry in folded.report.entries] == ["folded"] * 3
    gains, shifts = zip(*(_gain_and_shift(b, f"bn{k}") for k in range(3)), strict=True)
    weight = gains[0][:, None] * _wide(b, "w") * gains[1] * gains[2]
    bias = ((shifts[0] @ _wide(b, "w")) * gains[1] + shifts[1]) * gains[2] + shifts[2]
    _assert_rounded_once(folded.model, "w", weight, dtype)
    _assert_rounded_once(folded.model, "dense.bias", bias, dtype)


def test_three_roundings_would_be_seen() -> None:
    """Else the test above would say nothing."""
    rng = np.random.default_rng(3)
    weight, gains = rng.normal(size=(16, 8)).astype(np.float16), rng.normal(size=(3, 8))
    once = (weight.astype(np.float64) * gains[0] * gains[1] * gains[2]).astype(np.float16)
    each_time = weight
    for gain in gains:
        each_time = (each_time.astype(np.float64) * gain).astype(np.float16)
    assert not np.array_equal(once, each_time)


@by_dtype
def test_two_batchnorms_that_are_merged_are_rounded_once(dtype: Any) -> None:
    """The one that stays has mean 0 and variance 1, so that γ/√(1 + ε) is the gain of both."""
    b = GraphBuilder(np.random.default_rng(4), dtype=dtype)
    normal = b.batchnorm(b.batchnorm("x", 8, "bn0", epsilon=EPS), 8, "bn1", epsilon=EPS)
    folded = fold(b.model((8,), [b.node("Sigmoid", [normal], "sigmoid")]))
    assert sorted(entry.outcome for entry in folded.report.entries) == ["kept", "merged"]
    (left,) = (node for node in folded.model.graph if node.op_type == "BatchNormalization")
    (gain0, shift0), (gain1, shift1) = (_gain_and_shift(b, f"bn{k}") for k in range(2))
    names = [str(value.name) for value in left.inputs if value is not None]
    _assert_rounded_once(folded.model, names[1], gain1 * gain0 * np.sqrt(1 + EPS), dtype)
    _assert_rounded_once(folded.model, names[2], gain1 * shift0 + shift1, dtype)


@by_dtype
def test_no_dtype_of_the_model_is_changed(dtype: Any) -> None:
    b = GraphBuilder(np.random.default_rng(5), dtype=dtype)
    hidden = b.node("Relu", [b.batchnorm(b.gemm("x", 6, 5, "dense0"), 5, "bn0")], "relu")
    output = b.node("MatMul", [b.batchnorm(hidden, 5, "bn1"), b.weight("w", 5, 3)], "dense1")
    model = b.model((6,), [output])
    folded = fold(model).model
    tensors = [value.const_value for value in folded.graph.initializers.values()]
    kind = model.graph.inputs[0].dtype
    assert {tensor.dtype for tensor in tensors if tensor is not None} == {kind}
    assert [value.dtype for value in (*folded.graph.inputs, *folded.graph.outputs)] == [kind, kind]


@pytest.mark.parametrize("parameters", [np.float32, np.float64])
def test_parameters_of_a_wider_dtype_do_not_widen_a_float16_layer(parameters: Any) -> None:
    """As in mixed precision: from opset 15 on, the BatchNorm's parameters may be wider than what it normalises."""
    b = GraphBuilder(np.random.default_rng(6), dtype=np.float16)
    output = b.batchnorm(b.node("Gemm", ["x", b.weight("w", 16, 8)], "dense"), 8, "bn", epsilon=EPS)
    for what in ("scale", "offset", "mean", "var"):
        b.weights[f"bn.{what}"] = np.abs(b.rng.normal(size=8)).astype(parameters)
    folded = fold(b.model((16,), [output])).model
    gain, shift = _gain_and_shift(b, "bn")
    _assert_rounded_once(folded, "w", _wide(b, "w") * gain, np.float16)
    _assert_rounded_once(folded, "dense.bias", shift, np.float16)
