"""The witness of every fold: each kernel against ONNX's reference implementation, or ONNX Runtime where that fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from model_export.fold.edit import Edit
from model_export.fold.evaluate import KERNELS, Evaluation
from model_export.fold.scope import scopes_of
from model_export.fold.shapes import prove_shapes
from model_export.ir import ir

DOUBLE = 1e-12  # relative to the largest value: float64, over sums of less than a hundred terms
SINGLE = 1e-5  # the same where ONNX Runtime, in float32, is the oracle
NUM_EXAMPLES = 40
Array = NDArray[Any]


def _model(op: str, arrays: list[Array | None], outputs: int, opset: int, **attributes: Any) -> ir.Model:
    """One node; its first input is the model's, the others are weights."""
    names = ["" if array is None else f"i{k}" for k, array in enumerate(arrays)]
    x, *weights = arrays
    assert x is not None
    made = [f"o{k}" for k in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, made, name="node", **attributes)],
        "graph",
        [helper.make_tensor_value_info("i0", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in made],
        [numpy_helper.from_array(array, f"i{k}") for k, array in enumerate(weights, start=1) if array is not None],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9))


def _ours(model: ir.Model, x: Array) -> list[Array]:
    (scope,) = scopes_of(model, prove_shapes(model))
    values = Evaluation(scope, {model.graph.inputs[0]: x}, Edit()).run(scope.graph)
    return [values[output] for output in model.graph.outputs]


def _reference(model: ir.Model, x: Array) -> list[Array]:
    return [np.asarray(each) for each in ReferenceEvaluator(ir.to_proto(model)).run(None, {"i0": x})]


def _runtime(op: str, arrays: list[Array], **attributes: Any) -> Array:
    """ONNX Runtime's answer in float32, which is all that it convolves."""
    narrow: list[Array | None] = [array.astype(np.float32) for array in arrays]
    proto = ir.to_proto(_model(op, narrow, 1, 20, **attributes))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"i0": narrow[0]})[0])


def _assert_equal(found: Array, expected: Array, tolerance: float = DOUBLE) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max(initial=0) <= tolerance * np.abs(expected).max(initial=1)


# --- convolutions ----------------------------------------------------------------------------------------------------


@st.composite
def _convolutions(draw: st.DrawFn) -> tuple[list[Array], dict[str, Any]]:
    """1 to 3 spatial axes, groups, strides, dilations, padding by hand or by itself, with a bias or without."""
    rank = draw(st.integers(1, 3))
    groups, inputs, outputs = (draw(st.integers(1, 3)) for _ in range(3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    attributes: dict[str, Any] = {"group": groups, "strides": [draw(st.integers(1, 3)) for _ in range(rank)]}
    attributes["auto_pad"] = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if not attributes["auto_pad"].startswith("SAME"):
        attributes["dilations"] = [draw(st.integers(1, 2)) for _ in range(rank)]
    if attributes["auto_pad"] == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = [draw(st.integers(5, 7)) for _ in range(rank)]
    x = rng.normal(size=(draw(st.integers(1, 2)), groups * inputs, *sizes))
    weight, bias = rng.normal(size=(groups * outputs, inputs, *kernel)), rng.normal(size=groups * outputs)
    return [x, weight, *([bias] if draw(st.booleans()) else [])], attributes


@settings(deadline=None, max_examples=NUM_EXAMPLES)
@given(_convolutions())
def test_a_convolution_is_onnx_runtimes(drawn: tuple[list[Array], dict[str, Any]]) -> None:
    arrays, attributes = drawn
    (found,) = _ours(_model("Conv", list(arrays), 1, 20, **attributes), arrays[0])
    _assert_equal(found, _runtime("Conv", arrays, **attributes), SINGLE)


@st.composite
def _transposed(draw: st.DrawFn) -> tuple[list[Array], dict[str, Any]]:
    rank = draw(st.integers(1, 2))
    groups, inputs, outputs = (draw(st.integers(1, 3)) for _ in range(3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    attributes: dict[str, Any] = {
        "group": groups,
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "dilations": [draw(st.integers(1, 2)) for _ in range(rank)],
        "pads": [draw(st.integers(0, 1)) for _ in range(2 * rank)],
    }
    attributes["output_padding"] = [draw(st.integers(0, stride - 1)) for stride in attributes["strides"]]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(2, groups * inputs, *(draw(st.integers(3, 5)) for _ in range(rank))))
    weight, bias = rng.normal(size=(groups * inputs, outputs, *kernel)), rng.normal(size=groups * outputs)
    return [x, weight, *([bias] if draw(st.booleans()) else [])], attributes


@settings(deadline=None, max_examples=NUM_EXAMPLES)
@given(_transposed())
def test_a_transposed_convolution_is_onnx_runtimes(drawn: tuple[list[Array], dict[str, Any]]) -> None:
    arrays, attributes = drawn
    expected = _runtime("ConvTranspose", arrays, **attributes)
    assume(expected.size)
    (found,) = _ours(_model("ConvTranspose", list(arrays), 1, 20, **attributes), arrays[0])
    _assert_equal(found, expected, SINGLE)


@st.composite
def _max_pools(draw: st.DrawFn) -> tuple[list[Array], dict[str, Any]]:
    rank = draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "dilations": [draw(st.integers(1, 2)) for _ in range(rank)],
        "pads": [draw(st.integers(0, size - 1)) for size in (*kernel, *kernel)],
    }
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [rng.normal(size=(2, 3, *(draw(st.integers(5, 7)) for _ in range(rank))))], attributes


@settings(deadline=None, max_examples=NUM_EXAMPLES)
@given(_max_pools())
def test_a_maximum_is_onnx_runtimes_whatever_the_padding(drawn: tuple[list[Array], dict[str, Any]]) -> None:
    arrays, attributes = drawn
    (found,) = _ours(_model("MaxPool", list(arrays), 1, 20, **attributes), arrays[0])
    _assert_equal(found, _runtime("MaxPool", arrays, **attributes), SINGLE)


@pytest.mark.parametrize("op", ["GlobalMaxPool", "GlobalAveragePool"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_pool_over_all_of_space_keeps_its_axes(op: str, rank: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, *(4,) * rank))
    (found,) = _ours(_model(op, [x], 1, 20), x)
    _assert_equal(found, _runtime(op, [x]), SINGLE)


# --- dense layers ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=NUM_EXAMPLES)
@given(
    seed=st.integers(0, 2**32 - 1),
    transposed=st.tuples(st.booleans(), st.booleans()),
    factors=st.tuples(st.sampled_from([1.0, -0.5]), st.sampled_from([1.0, 2.0])),
    bias=st.sampled_from([None, (), (5,), (1, 5), (3, 1), (3, 5)]),
)
def test_a_gemm_is_the_references(
    seed: int, transposed: tuple[bool, bool], factors: tuple[float, float], bias: tuple[int, ...] | None
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(4, 3) if transposed[0] else (3, 4)), rng.normal(size=(5, 4) if transposed[1] else (4, 5))
    arrays = [a, b, *([] if bias is None else [np.asarray(rng.normal(size=bias))])]
    attributes = {"transA": int(transposed[0]), "transB": int(transposed[1]), "alpha": factors[0], "beta": factors[1]}
    model = _model("Gemm", list(arrays), 1, 20, **attributes)
    _assert_equal(_ours(model, a)[0], _reference(model, a)[0])


@pytest.mark.parametrize(
    ("op", "attributes"), [("RNN", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("LSTM", {})]
)
def test_a_recurrent_layer_depends_on_its_input_through_what_is_computed_alone(
    op: str, attributes: dict[str, Any]
) -> None:
    """Two inputs and weights for which W·x + b is the same give the same answer: so a fold need compare only that."""
    rng = np.random.default_rng(0)
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op] * 4
    x, weight, again = rng.normal(size=(5, 2, 3)), rng.normal(size=(1, gates, 3)), rng.normal(size=(1, gates, 4))
    bias, shift, scale = rng.normal(size=(1, 2 * gates)), rng.normal(size=3), rng.uniform(0.5, 2, size=3)
    other_bias = bias.copy()
    other_bias[:, :gates] += weight @ shift
    models = [
        _model(op, [scale * x + shift, weight, again, bias], 1, 20, hidden_size=4, **attributes),
        _model(op, [x, weight * scale, again, other_bias], 1, 20, hidden_size=4, **attributes),
    ]
    inputs = [scale * x + shift, x]
    before, after = (_ours(model, each)[0] for model, each in zip(models, inputs, strict=True))
    _assert_equal(after, before)
    before, after = (_reference(model, each)[0] for model, each in zip(models, inputs, strict=True))
    _assert_equal(after, before)


# --- the others ------------------------------------------------------------------------------------------------------


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


X = _rng().normal(size=(2, 6, 4))
OTHERS: list[tuple[str, list[Any], dict[str, Any], int]] = [
    *[(op, [X, _rng().normal(size=n)], {}, 1) for op in ("Add", "Sub", "Mul", "Div") for n in ((), (4,), (6, 1))],
    ("BatchNormalization", [X, *(np.abs(_rng().normal(size=(4, 6)))).tolist()], {"epsilon": 0.125}, 1),
    ("Cast", [X], {"to": TensorProto.DOUBLE}, 1),
    ("Concat", [X, X[:, :2]], {"axis": 1}, 1),
    ("Concat", [X, X], {"axis": -1}, 1),
    ("Dropout", [X], {}, 1),
    ("Expand", [X[:, :1], np.array([3, 1, 5, 1])], {}, 1),
    ("Flatten", [X], {"axis": 2}, 1),
    ("Flatten", [X], {}, 1),
    ("Identity", [X], {}, 1),
    ("LeakyRelu", [X], {"alpha": 0.5}, 1),
    ("MatMul", [X, _rng().normal(size=(4, 5))], {}, 1),
    ("Neg", [X], {}, 1),
    ("Relu", [X], {}, 1),
    ("Reshape", [X, np.array([0, -1, 2])], {}, 1),
    ("Split", [X, np.array([1, 3, 2])], {"axis": 1}, 3),
    ("Split", [X], {"axis": 1, "num_outputs": 3}, 3),
    ("Squeeze", [X[:, :1], np.array([1])], {}, 1),
    ("Transpose", [X], {"perm": [2, 0, 1]}, 1),
    ("Transpose", [X], {}, 1),
    ("Unsqueeze", [X, np.array([0, -1])], {}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("op", "arrays", "attributes", "num_outputs"), OTHERS)
def test_what_is_written_in_numpy_is_the_references(
    op: str, arrays: list[Any], attributes: dict[str, Any], num_outputs: int
) -> None:
    x, *weights = (np.asarray(array) for array in arrays)
    model = _model(op, [x, *weights], num_outputs, 20, **attributes)
    for found, expected in zip(_ours(model, x), _reference(model, x), strict=True):
        _assert_equal(found, expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_rows_are_looked_up_as_by_the_reference(axis: int) -> None:
    table, indices = _rng().normal(size=(5, 4)), np.array([[0, 2], [3, 1]])
    model = _model("Gather", [table, indices], 1, 20, axis=axis)
    _assert_equal(_ours(model, table)[0], _reference(model, table)[0])


def test_every_kernel_is_tried_here() -> None:
    tried = {op for op, *_ in OTHERS} | {"Conv", "ConvTranspose", "Gather", "GRU", "LSTM", "MaxPool", "RNN"}
    assert KERNELS.keys() <= tried | {"GlobalAveragePool", "GlobalMaxPool"}


# --- an edit ---------------------------------------------------------------------------------------------------------


def test_what_is_not_written_here_is_run_by_the_reference() -> None:
    x = _rng().normal(size=(2, 3))
    model = _model("Softplus", [x], 1, 20)
    _assert_equal(_ours(model, x)[0], np.log1p(np.exp(x)))
