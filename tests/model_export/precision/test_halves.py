"""fp16 and bf16: what is rounded, what stays float32, and what a device that really rounds answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_export.errors import PrecisionUnavailable
from model_export.precision import HALVES, lower, rehearse
from service.bundle import Precision
from service.runtime import ort, serving_options
from tests.model_export.fold.graphs import GraphBuilder

UNIT = {"fp16": 2.0**-11, "bf16": 2.0**-8}  # half the distance of two numbers around 1: what a rounding moves
# The oracle sums in another order than ONNX Runtime; where that turns a rounding, a value is off by one of them, and
# two layers and an activation pass that on.
ROUNDINGS = 6
NUMPY_TYPES: dict[str, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
HALF_NAMES: tuple[Precision, ...] = ("fp16", "bf16")


def _dense(*, seed: int = 0) -> ir.Model:
    """Gemm, Elu, Gemm, Elu, Gemm, Softmax."""
    b = GraphBuilder(np.random.default_rng(seed), dtype=np.float32)
    value = b.node("Elu", [_gemm(b, "x", 6, 8, "first")], "elu1")
    value = b.node("Elu", [_gemm(b, value, 8, 7, "second")], "elu2")
    logits = _gemm(b, value, 7, 3, "third")
    return b.model((6,), [b.node("Softmax", [logits], "softmax"), logits])


def _gemm(b: GraphBuilder, x: str, inputs: int, outputs: int, name: str) -> str:
    weights = [b.weight(f"{name}.weight", inputs, outputs), b.weight(f"{name}.bias", outputs)]
    return b.node("Gemm", [x, *weights], name)


def _convolutional() -> ir.Model:
    """Conv, MaxPool, a residual Conv, Flatten, Gemm: values that two nodes read, and operators that bf16 leaves out."""
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    pooled = b.node("MaxPool", [b.node("Conv", ["x", b.weight("conv1.weight", 4, 2, 3, 3)], "conv1", pads=[1] * 4)],
                    "pool", kernel_shape=[2, 2], strides=[2, 2])  # fmt: skip
    residual = b.node("Conv", [pooled, b.weight("conv2.weight", 4, 4, 3, 3)], "conv2", pads=[1] * 4)
    flat = b.node("Flatten", [b.node("Relu", [b.node("Add", [pooled, residual], "sum")], "relu")], "flatten")
    return b.model((2, 4, 4), [_gemm(b, flat, 16, 3, "dense")])


def _instances(*shape: int, seed: int = 1, scale: float = 1.0) -> NDArray[np.float32]:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def _run(model: ir.Model, instances: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, serving_options(), providers=["CPUExecutionProvider"])
    answers: list[NDArray[np.float32]] = session.run(None, {"x": instances})
    return answers


def _dtypes(model: ir.Model) -> dict[str, str]:
    return {name: value.dtype.name for name, value in model.graph.initializers.items() if value.dtype}


@pytest.mark.parametrize("name", HALF_NAMES)
def test_weights_are_stored_narrow_but_for_those_of_the_layer_that_computes_the_logits(name: Precision) -> None:
    lowered = lower(_dense(), name, _instances(4, 6))
    narrow = HALVES[name].onnx_type.name
    expected = {f"{layer}.{part}": narrow for layer in ("first", "second") for part in ("weight", "bias")}
    assert _dtypes(lowered.model) == expected | {"third.weight": "FLOAT", "third.bias": "FLOAT"}
    assert lowered.float32_layers == ("third",)


@pytest.mark.parametrize("name", HALF_NAMES)
@pytest.mark.parametrize(("make", "shape"), [(_dense, (6,)), (_convolutional, (2, 4, 4))])
def test_a_lowered_model_is_valid_and_its_inputs_and_outputs_are_float32(
    name: Precision, make: Callable[[], ir.Model], shape: tuple[int, ...]
) -> None:
    for model in (narrowed := lower(make(), name, _instances(4, *shape)).model, rehearse(narrowed, HALVES[name])):
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        ends = [*proto.graph.input, *proto.graph.output]
        assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}
        assert [end.name for end in ends] == [
            str(value.name) for value in (*make().graph.inputs, *make().graph.outputs)
        ]


@pytest.mark.parametrize("name", ["fp16", "bf16", "int8"])
@pytest.mark.parametrize(("make", "shape"), [(_dense, (6,)), (_convolutional, (2, 4, 4))])
def test_the_model_that_is_lowered_is_left_as_it_was(
    name: Precision, make: Callable[[], ir.Model], shape: tuple[int, ...]
) -> None:
    model = make()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    lower(model, name, _instances(20, *shape))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_the_rehearsal_leaves_its_model_as_it_was() -> None:
    narrowed = lower(_dense(), "fp16", _instances(4, 6)).model
    before = ir.to_proto(narrowed).SerializeToString(deterministic=True)
    rehearse(narrowed, HALVES["fp16"])
    assert ir.to_proto(narrowed).SerializeToString(deterministic=True) == before


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(HALF_NAMES), seed=st.integers(0, 2**16))
def test_the_rehearsal_rounds_every_value_as_numpy_does(name: Precision, seed: int) -> None:
    """Each layer in float64 from rounded values and rounded weights, rounded again; bf16's Elu is float32."""
    model, instances = _dense(seed=seed), _instances(5, 6, seed=seed)
    weights = {key: value.const_value.numpy() for key, value in model.graph.initializers.items() if value.const_value}
    narrow = NUMPY_TYPES[name]

    def rounded(values: NDArray[Any]) -> NDArray[np.float64]:
        return values.astype(np.float32).astype(narrow).astype(np.float64)

    value = rounded(instances)
    for layer in ("first", "second"):
        value = rounded(value @ rounded(weights[f"{layer}.weight"]) + rounded(weights[f"{layer}.bias"]))
        value = np.where(value > 0, value, np.expm1(value))
        value = rounded(value) if name == "fp16" or layer == "first" else value
    expected = value @ weights["third.weight"].astype(np.float64) + weights["third.bias"]
    _, found = _run(rehearse(lower(model, name, instances).model, HALVES[name]), instances)
    size = np.abs(value).max() * np.abs(weights["third.weight"]).sum(axis=0).max()
    assert np.abs(found - expected).max() <= ROUNDINGS * UNIT[name] * size


def test_the_rehearsal_shows_what_the_cpu_hides() -> None:
    """2049 lies between two float16s; ONNX Runtime's CPU provider, x86, passes it on as it is."""
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    hidden = b.node("Gemm", ["x", b.constant("first.weight", [[1.0]])], "first")
    model = b.model((1,), [b.node("Gemm", [hidden, b.constant("second.weight", [[1.0]])], "second")])
    instance = np.array([[2049.0]], dtype=np.float32)
    rehearsal = rehearse(lower(model, "fp16", instance).model, HALVES["fp16"])
    assert _run(rehearsal, instance)[0].item() == 2048.0 == float(np.float16(2049.0))


def test_fp16_is_near_float32_and_bf16_less_so() -> None:
    instances = _instances(50, 6)
    exact = _run(_dense(), instances)[0]
    largest = {
        name: np.abs(_run(rehearse(lower(_dense(), name, instances).model, HALVES[name]), instances)[0] - exact).max()
        for name in HALF_NAMES
    }
    assert 0 < largest["fp16"] < 0.01
    assert 2 * largest["fp16"] < largest["bf16"] < 0.08  # eight times as coarse, and a factor of luck


def test_a_weight_beyond_the_range_is_refused_by_name() -> None:
    model = _dense()
    weight = model.graph.initializers["second.weight"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1e5), name="second.weight")
    with pytest.raises(PrecisionUnavailable, match=r"'second.weight' reaches .*e\+05, the largest number is 65504"):
        lower(model, "fp16", np.zeros((1, 6), np.float32))


@pytest.mark.parametrize(("largest", "where"), [(1e6, "'x' reaches 1e"), (6e4, "'first_out' reaches")])
def test_a_value_beyond_the_range_is_refused_though_the_cpu_would_not_see_it(largest: float, where: str) -> None:
    instances = np.full((1, 6), largest, dtype=np.float32) * np.sign(_instances(50, 6))
    with pytest.raises(PrecisionUnavailable, match=where):
        lower(_dense(), "fp16", instances)


def test_what_stays_float32_may_be_beyond_the_range() -> None:
    model = _dense()
    weight = model.graph.initializers["third.weight"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1e6), name="third.weight")
    assert _dtypes(lower(model, "fp16", _instances(4, 6)).model)["third.weight"] == "FLOAT"


def test_bf16_holds_what_fp16_can_not() -> None:
    instances = _instances(20, 6, scale=1e6)
    assert np.isfinite(_run(rehearse(lower(_dense(), "bf16", instances).model, HALVES["bf16"]), instances)[1]).all()


def test_a_convolution_in_bf16_is_of_the_opset_that_knows_it() -> None:
    lowered = lower(_convolutional(), "bf16", _instances(4, 2, 4, 4)).model
    assert lowered.opset_imports[""] == 22
    assert _dtypes(lowered)["conv1.weight"] == "BFLOAT16"
    assert lower(_dense(), "bf16", _instances(4, 6)).model.opset_imports[""] == 20


def test_operators_without_bfloat16_on_gpus_stay_float32() -> None:
    lowered = lower(_convolutional(), "bf16", _instances(4, 2, 4, 4)).model
    pool = next(node for node in lowered.graph if node.op_type == "MaxPool")
    relu = next(node for node in lowered.graph if node.op_type == "Relu")
    assert (pool.outputs[0].dtype, relu.outputs[0].dtype) == (ir.DataType.FLOAT, ir.DataType.BFLOAT16)


def test_a_value_is_cast_once_however_many_read_it() -> None:
    lowered = lower(_convolutional(), "bf16", _instances(4, 2, 4, 4)).model
    sources = [node.inputs[0].name for node in lowered.graph if node.op_type == "Cast" and node.inputs[0]]
    assert len(sources) == len(set(sources))


def test_a_weight_that_a_float32_layer_reads_too_is_kept_in_both() -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    hidden = b.node("Gemm", ["x", b.weight("tied", 5, 5)], "first")
    model = b.model((5,), [b.node("Gemm", [b.node("Tanh", [hidden], "tanh"), "tied"], "second")])
    assert sorted(_dtypes(lower(model, "fp16", _instances(4, 5)).model).values()) == ["FLOAT", "FLOAT16"]


def test_a_batchnorm_that_was_kept_computes_in_float32() -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    hidden = _gemm(b, b.batchnorm("x", 6, "bn"), 6, 8, "first")
    model = b.model((6,), [_gemm(b, hidden, 8, 3, "second")])
    dtypes = _dtypes(lower(model, "fp16", _instances(4, 6)).model)
    assert {dtypes[f"bn.{part}"] for part in ("scale", "offset", "mean", "var")} == {"FLOAT"}
    assert dtypes["first.weight"] == "FLOAT16"


def test_nodes_without_names_are_told_apart() -> None:
    model = _dense()
    for node in model.graph:
        node.name = None
    assert _dtypes(lower(model, "fp16", _instances(4, 6)).model)["third.weight"] == "FLOAT"
    assert {node.name for node in model.graph} == {None}


@pytest.mark.parametrize("name", ["fp16", "bf16", "int8"])
def test_a_network_of_one_layer_has_nothing_to_lower(name: Precision) -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    model = b.model((6,), [_gemm(b, "x", 6, 3, "only")])
    with pytest.raises(PrecisionUnavailable, match="there is nothing to lower"):
        lower(model, name, _instances(4, 6))


def test_a_graph_inside_a_node_is_not_entered() -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    branch = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["first_out"], ["y"])], "branch", [], [value])
    b.constant("condition", np.array(1, dtype=np.int64))
    hidden = _gemm(b, "x", 6, 8, "first")
    chosen = b.node("If", [b.node("Cast", ["condition"], "cast", to=9)], "if", then_branch=branch, else_branch=branch)
    del hidden
    model = b.model((6,), [_gemm(b, chosen, 8, 3, "second")])
    with pytest.raises(PrecisionUnavailable, match=r"'if' \(If\) has a graph of its own"):
        lower(model, "fp16", _instances(4, 6))
