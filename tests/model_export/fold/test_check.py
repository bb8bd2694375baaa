"""The last look tells a wrong fold from a network's own noise, as it will be served too, or says why it can not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from model_export.errors import FoldInvalid
from model_export.fold import fold
from model_export.fold.check import (
    NUM_FLOORS,
    compare,
    compare_models,
    jitter,
    record,
    relative_difference,
)
from model_export.fold.files import save_model
from model_export.fold.instances import SERVING, open_session
from service.runtime import serving_options
from tests.model_export.fold.graphs import GraphBuilder

SINGLE_PRECISION = 1e-5  # a few dozen float32 roundings, relative to the largest output
WIDTH = 32


def _book_network() -> ir.Model:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    hidden = b.node("Elu", [b.gemm(b.batchnorm("x", 6, "bn0"), 6, 5, "dense0")], "elu")
    kept = b.node("LayerNormalization", [hidden, b.weight("ln", 5)], "layernorm")
    return b.model((6,), [b.gemm(b.batchnorm(kept, 5, "bn1"), 5, 3, "dense1")])


def _deep_network(depth: int, *, gain: float, dtype: type = np.float32) -> ir.Model:
    """Dense layers, each with a BatchNorm behind it; from a gain of about 3 on it is chaotic."""
    b = GraphBuilder(np.random.default_rng(1), dtype=dtype)
    value = "x"
    for layer in range(depth):
        b.constant(f"dense{layer}.weight", b.rng.normal(scale=gain / np.sqrt(WIDTH), size=(WIDTH, WIDTH)))
        value = b.node("Gemm", [value, f"dense{layer}.weight"], f"dense{layer}")
        for what, low in (("scale", 0.5), ("offset", -0.5), ("mean", -0.5), ("var", 0.5)):
            b.constant(f"bn{layer}.{what}", b.rng.uniform(low, low + 1, size=WIDTH))
        inputs = [f"bn{layer}.{what}" for what in ("scale", "offset", "mean", "var")]
        value = b.node("Tanh", [b.node("BatchNormalization", [value, *inputs], f"bn{layer}")], f"tanh{layer}")
    return b.model((WIDTH,), [b.gemm(value, WIDTH, 4, "head")])


def _scale_channel(model: ir.Model, weight: str, channel: int, factor: float) -> ir.Model:
    """The same model, but for one output channel of one dense layer."""
    wrong = model.clone()
    tensor = wrong.graph.initializers[weight].const_value
    values = np.array(tensor.numpy())  # type: ignore[union-attr]
    values[:, channel] *= factor
    wrong.graph.initializers[weight].const_value = ir.tensor(values, name=weight)
    return wrong


def test_a_wrong_fold_is_seen_and_a_right_one_passes() -> None:
    model = _book_network()
    right = fold(model).model
    assert (compare_models(model, right).relative_difference or 0) < SINGLE_PRECISION
    with pytest.raises(FoldInvalid, match="answers differently"):
        compare_models(model, _scale_channel(right, "dense1.weight", 0, 1.5))


@pytest.mark.parametrize("layer", [0, 14, 29])
def test_one_percent_in_one_channel_of_thirty_layers_is_told_from_noise(layer: int) -> None:
    model = _deep_network(30, gain=1.5)
    right = fold(model).model
    assert (compare_models(model, right).in_noise_floors or 0) < NUM_FLOORS / 3
    with pytest.raises(FoldInvalid, match="times the network's own noise"):
        compare_models(model, _scale_channel(right, f"dense{layer}.weight", 3, 1.01))


def test_a_chaotic_network_is_right_where_a_calm_one_would_be_wrong() -> None:
    """Both are off by about as much: only in units of the network's own noise are they told apart."""
    chaotic, calm = _deep_network(50, gain=6.0), _deep_network(5, gain=1.5)
    right = compare_models(chaotic, fold(chaotic).model)
    assert (right.relative_difference or 0) > 1e-4
    assert (right.in_noise_floors or np.inf) < NUM_FLOORS
    with pytest.raises(FoldInvalid, match=r"by \d\.\de-04"):
        compare_models(calm, _scale_channel(fold(calm).model, "dense4.weight", 3, 1.002))


def test_a_comparison_is_made_at_both_levels_and_the_ratio_is_its_units() -> None:
    model = _deep_network(5, gain=1.5)
    found = compare_models(model, fold(model).model)
    assert set(found.by_level) == {"unoptimised", "serving"}
    assert found.relative_difference == max(found.by_level.values())
    assert found.in_noise_floors == pytest.approx((found.relative_difference or 0) / (found.noise_floor or 1))


def test_the_noise_floor_is_no_less_than_one_unit_in_the_last_place() -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    model = b.model((6,), [b.node("Sign", ["x"], "sign")])
    assert compare_models(model, model).noise_floor == np.finfo(np.float32).eps


def test_jitter_moves_every_value_by_one_unit_up_or_down() -> None:
    values = np.array([1.0, -2.0, 0.0, np.inf], np.float32)
    moved = jitter(np.tile(values, (100, 1)), np.random.default_rng(0))
    for column, value in enumerate(values[:3]):
        expected = {np.nextafter(value, np.float32(sign * np.inf)) for sign in (-1, 1)}
        assert set(moved[:, column]) == expected
    assert np.isposinf(moved[:, 3]).all()


# --- whose fault it is -----------------------------------------------------------------------------------------------


def _transposed(tail: str) -> ir.Model:
    """MatMul, Transpose, and a map of axis 1 that is as long as MatMul's last axis: as a BatchNorm, or Mul and Add."""
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    turned = b.node("Transpose", [b.node("MatMul", ["x", b.weight("weight", 6, 5)], "dense")], "turned", perm=[1, 0])
    mapped = b.batchnorm(turned, 5, "bn")
    if tail == "affine":
        del b.nodes[-1]
        scale = b.weights["bn.scale"] / np.sqrt(b.weights["bn.var"] + 1e-5)
        shift = b.weights["bn.offset"] - b.weights["bn.mean"] * scale
        mapped = b.node("Mul", [turned, b.constant("scale", scale)], "mul")
        mapped = b.node("Add", [mapped, b.constant("shift", shift)], "bn")
    b.weights = {name: array for name, array in b.weights.items() if tail == "batchnorm" or "bn." not in name}
    model = b.model((6,), [mapped])
    model.graph.inputs[0].shape, model.graph.outputs[0].shape = ir.Shape([5, 6]), ir.Shape([5, 5])
    return model


def test_a_fold_is_not_blamed_for_what_the_runtime_does_to_the_original() -> None:
    model = _transposed("batchnorm")
    found = compare_models(model, model)
    assert found.by_level["unoptimised"] == 0
    if not found.runtime_difference:
        pytest.skip("this ONNX Runtime optimises MatMul, Transpose, BatchNormalization correctly")
    assert found.runtime_difference > 1e-2


def test_a_folded_model_that_the_runtime_would_serve_wrongly_is_refused() -> None:
    if not compare_models(_transposed("batchnorm"), _transposed("batchnorm")).runtime_difference:
        pytest.skip("this ONNX Runtime optimises MatMul, Transpose, BatchNormalization correctly")
    with pytest.raises(FoldInvalid, match="once ONNX Runtime has optimised it"):
        compare_models(_transposed("affine"), _transposed("batchnorm"))


def test_a_folded_model_that_does_not_run_is_refused(tmp_path: Path) -> None:
    save_model(_book_network(), tmp_path / "before.onnx")
    (tmp_path / "after.onnx").write_bytes(b"no model")
    with pytest.raises(FoldInvalid, match="does not run the folded model"):
        compare(record(tmp_path / "before.onnx"), tmp_path / "after.onnx")


def test_a_folded_model_of_another_form_is_refused() -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    narrow = b.model((6,), [b.node("Slice", ["x", *(b.constant(str(k), [k]) for k in (0, 3, 1))], "y")])
    c = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    wide = c.model((6,), [c.node("Identity", ["x"], "y")])
    with pytest.raises(FoldInvalid, match="answers differently"):
        compare_models(wide, narrow)


def test_answers_that_jump_are_not_called_wrong() -> None:
    """Two columns of a weight differ by one rounding: which is the larger is up to the noise."""
    weight = np.random.default_rng(0).normal(size=(6, 1)).astype(np.float32)
    above = np.nextafter(weight, np.float32(np.inf) * np.sign(weight))

    def largest(columns: list[np.ndarray]) -> ir.Model:
        b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
        scores = b.node("Gemm", ["x", b.constant("weight", np.hstack(columns))], "scores")
        label = b.node("ArgMax", [scores], "label", axis=1)
        return b.model((6,), [b.node("Cast", [label], "y", to=TensorProto.FLOAT)])

    found = compare_models(largest([weight, above]), largest([above, weight]))
    assert found.not_compared or (found.in_noise_floors or np.inf) < NUM_FLOORS


def test_half_precision_in_the_middle_is_part_of_the_noise() -> None:
    """One ulp of a float32 input rarely reaches the next float16: the noise of the weights has to be measured."""
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float16)
    value = b.node("Cast", ["x"], "half", to=TensorProto.FLOAT16)
    for layer in range(5):
        value = b.batchnorm(b.gemm(value, 6, 6, f"dense{layer}"), 6, f"bn{layer}")
    b.dtype = np.float32
    model = b.model((6,), [b.node("Cast", [value], "y", to=TensorProto.FLOAT)])
    found = compare_models(model, fold(model).model)
    assert (found.relative_difference or 0) > SINGLE_PRECISION
    assert (found.in_noise_floors or np.inf) < NUM_FLOORS


# --- what can be looked at -------------------------------------------------------------------------------------------


def test_weights_beside_the_model_are_found(tmp_path: Path) -> None:
    model = _deep_network(3, gain=1.5)
    for name, each in (("before", model), ("after", fold(model).model)):
        ir.save(each, tmp_path / f"{name}.onnx", external_data=f"{name}.data")
    recording = record(tmp_path / "before.onnx")
    assert (tmp_path / "before.data").is_file()
    assert (compare(recording, tmp_path / "after.onnx").relative_difference or 1) < SINGLE_PRECISION


def _with_input(model: ir.Model, kind: int, shape: list[int | str]) -> ir.Model:
    graph = ir.to_proto(model)
    graph.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", kind, shape))
    del graph.graph.output[0].type.tensor_type.shape.dim[:]
    inferred = onnx.shape_inference.infer_shapes(graph).graph.output[0]
    graph.graph.output[0].CopyFrom(inferred)
    return ir.from_proto(graph)


def test_words_of_a_vocabulary_are_instances_too() -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    embedded = b.node("Gather", [b.weight("vocabulary", 2, 6), "x"], "embedded")
    model = _with_input(b.model((6,), [b.gemm(embedded, 6, 3, "head")]), TensorProto.INT64, ["batch"])
    assert compare_models(model, model).relative_difference == 0


@pytest.mark.parametrize("least", [1, 20, 200])
def test_a_free_axis_gets_the_first_size_that_the_model_takes(least: int, tmp_path: Path) -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    weight = b.weight("weight", 2, 1, least)
    model = b.model((1, None), [b.node("GlobalAveragePool", [b.node("Conv", ["x", weight], "conv")], "pool")])
    save_model(model, tmp_path / "model.onnx")
    sizes = [feed["x"].shape for feed in record(tmp_path / "model.onnx").feeds]
    expected = {1: 8, 20: 32, 200: 224}[least]
    assert sizes == [(1, 1, expected), (2, 1, expected)]


def test_a_fixed_batch_is_compared_as_it_is(tmp_path: Path) -> None:
    model = _book_network()
    model.graph.inputs[0].shape = ir.Shape([2, 6])
    model.graph.outputs[0].shape = ir.Shape([2, 3])
    save_model(model, tmp_path / "model.onnx")
    assert [feed["x"].shape for feed in record(tmp_path / "model.onnx").feeds] == [(2, 6)]


def test_a_check_says_why_it_could_not_look() -> None:
    model = _book_network()
    model.graph.inputs[0].dtype = ir.DataType.STRING
    assert "does not run here" in compare_models(model, model).not_compared


def _unary(op: str, dtype: type = np.float32) -> ir.Model:
    b = GraphBuilder(np.random.default_rng(0), dtype=dtype)
    return b.model((6,), [b.node(op, [b.batchnorm(b.gemm("x", 6, 5, "dense"), 5, "bn")], "last")])


@pytest.mark.parametrize("op", ["Log", "Sqrt", "Reciprocal", "Relu"])
def test_infinities_and_nans_on_both_sides_are_no_difference(op: str) -> None:
    model = _unary(op)
    assert (compare_models(model, fold(model).model).in_noise_floors or 0) < NUM_FLOORS


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.25),
        ([np.nan, np.inf, 2.0], [np.nan, np.inf, 1.0], 0.5),
        ([np.nan, 2.0], [1.0, 2.0], np.inf),
        ([np.inf, 2.0], [-np.inf, 2.0], np.inf),
        ([np.inf, np.nan], [np.inf, np.nan], 0.0),
        ([0.0], [0.0], 0.0),
    ],
)
def test_a_difference_is_relative_to_the_largest_finite_value(
    expected: list[float], found: list[float], difference: float
) -> None:
    arrays = [np.array(values, np.float32) for values in (expected, found)]
    assert relative_difference(*arrays) == difference


def test_a_random_model_is_not_compared() -> None:
    model = _unary("RandomNormalLike")
    assert "random" in compare_models(model, fold(model).model).not_compared


def test_a_model_without_floating_point_outputs_is_not_compared() -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    label = b.node("ArgMax", [b.batchnorm(b.gemm("x", 6, 5, "dense"), 5, "bn")], "label")
    graph = ir.to_proto(b.model((6,), [label])).graph
    graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    assert "floating-point" in compare_models(model, fold(model).model).not_compared


def test_half_precision_is_compared_with_room_for_its_rounding() -> None:
    model = _unary("Relu", np.float16)
    assert compare_models(model, fold(model).model).relative_difference is not None


def test_what_is_compared_at_the_serving_level_is_opened_as_the_service_opens_it(tmp_path: Path) -> None:
    save_model(_book_network(), tmp_path / "model.onnx")
    ours, theirs = open_session(tmp_path / "model.onnx", SERVING).get_session_options(), serving_options()
    for name in ("graph_optimization_level", "intra_op_num_threads", "inter_op_num_threads", "execution_mode"):
        assert getattr(ours, name) == getattr(theirs, name)
    spinning = "session.intra_op.allow_spinning"
    assert ours.get_session_config_entry(spinning) == theirs.get_session_config_entry(spinning) == "0"
