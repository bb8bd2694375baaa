"""Every pattern that folds: the ledger says where to, no BatchNorm is left, and the answers are the raw graph's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from model_export.fold import fold
from model_export.fold.check import compare_models
from tests.model_export.fold.graphs import GraphBuilder, assert_same_answers, fold_and_compare, num_batchnorms

Build = Callable[[GraphBuilder], tuple[str, tuple[int, ...]]]


def _gemm_then(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    return b.batchnorm(b.gemm("x", 6, 4, "dense"), 4, "bn"), (6,)


def _gemm_with_attributes_then(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    inputs = ["x", b.weight("w", 4, 6), b.weight("c", 4)]
    return b.batchnorm(b.node("Gemm", inputs, "dense", alpha=0.5, beta=-2.0, transB=1), 4, "bn"), (6,)


def _gemm_with_scalar_bias_then(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    inputs = ["x", b.weight("w", 6, 4), b.constant("c", 1.5)]
    return b.batchnorm(b.node("Gemm", inputs, "dense"), 4, "bn"), (6,)


def _gemm_with_row_bias_then(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    inputs = ["x", b.weight("w", 6, 4), b.weight("c", 1, 4)]
    return b.batchnorm(b.node("Gemm", inputs, "dense"), 4, "bn"), (6,)


def _matmul_then(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    return b.batchnorm(b.node("MatMul", ["x", b.weight("w", 6, 4)], "dense"), 4, "bn"), (6,)


def _matmul_add_then(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    product = b.node("MatMul", ["x", b.weight("w", 6, 4)], "dense")
    return b.batchnorm(b.node("Add", [b.weight("c", 4), product], "add"), 4, "bn"), (6,)


def _identity_between(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    hidden = b.node("Dropout", [b.node("Identity", [b.gemm("x", 6, 4, "dense")], "same")], "drop")
    return b.batchnorm(hidden, 4, "bn"), (6,)


def _weight_computed_from_constants(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    """As exporters leave it: what is the same at every run is a constant, however it is written."""
    weight = b.node("Relu", [b.weight("w", 6, 4)], "computed")
    return b.batchnorm(b.node("Gemm", ["x", weight], "dense"), 4, "bn"), (6,)


def _two_in_a_row(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    return b.batchnorm(b.batchnorm(b.gemm("x", 6, 4, "dense"), 4, "bn"), 4, "bn2"), (6,)


PREVIOUS = [
    _gemm_then,
    _gemm_with_attributes_then,
    _gemm_with_scalar_bias_then,
    _gemm_with_row_bias_then,
    _matmul_then,
    _matmul_add_then,
    _identity_between,
    _weight_computed_from_constants,
    _two_in_a_row,
]


def _then_gemm(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    return b.gemm(b.batchnorm("x", 6, "bn"), 6, 4, "dense"), (6,)


def _then_gemm_with_attributes(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    inputs = [b.batchnorm("x", 6, "bn"), b.weight("w", 4, 6), b.weight("c", 4)]
    return b.node("Gemm", inputs, "dense", alpha=0.5, beta=-2.0, transB=1), (6,)


def _then_matmul(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    return b.node("MatMul", [b.batchnorm("x", 6, "bn"), b.weight("w", 6, 4)], "dense"), (6,)


def _then_matmul_add(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    product = b.node("MatMul", [b.batchnorm("x", 6, "bn"), b.weight("w", 6, 4)], "dense")
    return b.node("Add", [product, b.weight("c", 1, 4)], "add"), (6,)


def _then_flatten_gemm(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    return b.gemm(b.node("Flatten", [b.batchnorm("x", 3, "bn")], "flat"), 12, 4, "dense"), (3, 2, 2)


def _then_reshape_gemm(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    target = b.constant("target", np.array([-1, 12], dtype=np.int64))
    return b.gemm(b.node("Reshape", [b.batchnorm("x", 3, "bn"), target], "flat"), 12, 4, "dense"), (3, 2, 2)


def _then_computed_reshape_matmul(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    """As exporters write it: the batch is read from the input's shape."""
    batch = b.node("Shape", ["x"], "shape", start=0, end=1)
    rest = b.constant("rest", np.array([12], dtype=np.int64))
    target = b.node("Concat", [batch, rest], "target", axis=0)
    flat = b.node("Reshape", [b.batchnorm("x", 3, "bn"), target], "flat")
    return b.node("MatMul", [flat, b.weight("w", 12, 4)], "dense"), (3, 2, 2)


def _after_the_activation(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    hidden = b.node("Elu", [b.gemm("x", 6, 4, "dense0")], "elu")
    return b.gemm(b.batchnorm(hidden, 4, "bn"), 4, 3, "dense"), (6,)


def _two_in_a_row_before(b: GraphBuilder) -> tuple[str, tuple[int, ...]]:
    """The first one sees the layer only once the second is gone."""
    return b.gemm(b.batchnorm(b.batchnorm("x", 6, "bn"), 6, "bn2"), 6, 4, "dense"), (6,)


NEXT = [
    _then_gemm,
    _then_gemm_with_attributes,
    _then_matmul,
    _then_matmul_add,
    _then_flatten_gemm,
    _then_reshape_gemm,
    _then_computed_reshape_matmul,
    _after_the_activation,
    _two_in_a_row_before,
]


def _model(build: Build, seed: int = 0) -> tuple[ir.Model, tuple[int, ...]]:
    builder = GraphBuilder(np.random.default_rng(seed))
    output, instance_shape = build(builder)
    return builder.model(instance_shape, [output]), instance_shape


@pytest.mark.parametrize("build", PREVIOUS)
def test_a_batchnorm_behind_a_linear_layer_folds_into_it(build: Build) -> None:
    folded = fold_and_compare(*_model(build))
    assert {(entry.direction, entry.into) for entry in folded.report.entries} == {("previous", ("dense",))}
    assert num_batchnorms(folded.model) == 0


@pytest.mark.parametrize("build", NEXT)
def test_a_batchnorm_before_a_linear_layer_folds_into_it(build: Build) -> None:
    folded = fold_and_compare(*_model(build))
    assert {(entry.direction, entry.into) for entry in folded.report.entries} == {("next", ("dense",))}
    assert num_batchnorms(folded.model) == 0


spatial_shapes = st.sampled_from([(5,), (5, 4), (4, 3, 3)])


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spatial=spatial_shapes,
    groups=st.integers(1, 3),
    outputs=st.integers(1, 3),
    inputs=st.integers(1, 3),
    bias=st.booleans(),
    before=st.booleans(),
)
def test_any_unpadded_convolution_folds_from_either_side(  # noqa: PLR0917 - one argument for each thing drawn
    seed: int, spatial: tuple[int, ...], groups: int, outputs: int, inputs: int, bias: bool, before: bool
) -> None:
    b = GraphBuilder(np.random.default_rng(seed))
    weights = [
        b.weight("w", groups * outputs, inputs, *(2 for _ in spatial)),
        *([b.weight("c", groups * outputs)] if bias else []),
    ]
    source = b.batchnorm("x", groups * inputs, "bn") if before else "x"
    output = b.node("Conv", [source, *weights], "conv", group=groups)
    output = output if before else b.batchnorm(output, groups * outputs, "bn")
    instance_shape = (groups * inputs, *spatial)
    folded = fold_and_compare(b.model(instance_shape, [output]), instance_shape)
    assert [entry.direction for entry in folded.report.entries] == ["next" if before else "previous"]
    assert num_batchnorms(folded.model) == 0


def _append(b: GraphBuilder, what: str, value: str, name: str) -> str:
    if what == "bn":
        return b.batchnorm(value, 5, name)
    return b.node("Elu", [value], name) if what == "elu" else b.gemm(value, 5, 5, name)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), placements=st.lists(st.sampled_from(["bn", "elu", "dense"]), max_size=8))
def test_any_chain_of_dense_layers_activations_and_batchnorms_keeps_its_answers(
    seed: int, placements: list[str]
) -> None:
    b = GraphBuilder(np.random.default_rng(seed))
    value = "x"
    for index, what in enumerate(placements):
        value = _append(b, what, value, f"{what}{index}")
    folded = fold_and_compare(b.model((5,), [b.gemm(value, 5, 3, "head")]), (5,))
    kept = [entry for entry in folded.report.entries if entry.outcome == "kept"]
    assert len(folded.report.entries) == placements.count("bn")
    assert len(kept) == num_batchnorms(folded.model)


def test_one_layer_takes_a_batchnorm_from_each_side() -> None:
    b = GraphBuilder(np.random.default_rng(2))
    output = b.batchnorm(b.gemm(b.batchnorm("x", 6, "first"), 6, 4, "dense"), 4, "last")
    folded = fold_and_compare(b.model((6,), [output]), (6,))
    assert [(entry.batchnorm, entry.direction) for entry in folded.report.entries] == [
        ("first", "next"),
        ("last", "previous"),
    ]


def test_a_batchnorm_that_two_layers_read_folds_into_both() -> None:
    b = GraphBuilder(np.random.default_rng(3))
    normal = b.batchnorm("x", 6, "bn")
    outputs = [b.gemm(normal, 6, 4, "left"), b.gemm(b.node("Identity", [normal], "same"), 6, 2, "right")]
    folded = fold_and_compare(b.model((6,), outputs), (6,))
    assert sorted(folded.report.entries[0].into) == ["left", "right"]
    assert folded.report.entries[0].path == ("same",)


def test_a_batchnorm_behind_a_sum_of_layers_folds_into_all_of_them() -> None:
    b = GraphBuilder(np.random.default_rng(10))
    total = b.node("Add", [b.gemm("x", 6, 4, "left"), b.gemm("x", 6, 4, "right")], "sum")
    folded = fold_and_compare(b.model((6,), [b.batchnorm(total, 4, "bn")]), (6,))
    assert sorted(folded.report.entries[0].into) == ["left", "right"]
    assert num_batchnorms(folded.model) == 0


def test_a_layer_in_the_body_of_an_if_takes_the_batchnorm_that_stands_beside_it_there() -> None:
    b = GraphBuilder(np.random.default_rng(11))
    inside = GraphBuilder(b.rng)
    output = inside.batchnorm(inside.gemm("x", 6, 4, "inside"), 4, "bn")
    model = b.model((6,), [_branch(b, inside, output)])
    folded = fold_and_compare(model, (6,))
    assert folded.report.entries[0].into == ("inside",)
    assert num_batchnorms(folded.model) == 0


def _branch(b: GraphBuilder, body: GraphBuilder, output: str) -> str:
    """An If on a constant condition, whose first branch is this body."""
    result = helper.make_tensor_value_info(output, TensorProto.DOUBLE, None)
    weights = [numpy_helper.from_array(values, name) for name, values in body.weights.items()]
    then = helper.make_graph(body.nodes, "then", [], [result], weights)
    zero = helper.make_node("Constant", [], ["e"], value=numpy_helper.from_array(np.zeros((1, 4))))
    other = helper.make_graph([zero], "else", [], [helper.make_tensor_value_info("e", TensorProto.DOUBLE, None)])
    b.constant("yes", np.array(1, dtype=np.int64))
    condition = b.node("Cast", ["yes"], "bool", to=TensorProto.BOOL)
    return b.node("If", [condition], "branch", then_branch=then, else_branch=other)


def test_a_batchnorm_behind_a_sum_whose_terms_have_the_batch_on_different_axes_folds() -> None:
    """One code word a sequence, and the sequences by time: the batch is axis 0 of the one and axis 1 of the other."""
    b = GraphBuilder(np.random.default_rng(13))
    axes = b.constant("axes", np.array([0], dtype=np.int64))
    by_time = b.node("MatMul", ["s", b.weight("w", 4, 4)], "times")
    total = b.node("Add", [by_time, b.node("Unsqueeze", [b.gemm("x", 4, 4, "word"), axes], "once")], "sum")
    turned = b.node("Transpose", [total], "turned", perm=[1, 2, 0])
    sequence = helper.make_tensor_value_info("s", TensorProto.DOUBLE, [5, "batch", 4])
    model = b.model((4,), [b.batchnorm(turned, 4, "bn")], inputs=(sequence,))
    assert fold(model).report.entries[0].into == ("times", "word")


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4)])
def test_a_batchnorm_beside_a_product_from_the_left_goes_onto_the_diagonal(shape: tuple[int, ...]) -> None:
    """W x + BN(x), where the channels are the rows of x; also onto that of each matrix of a batch."""
    b = GraphBuilder(np.random.default_rng(14))
    product = b.node("MatMul", [b.weight("w", *shape), "x"], "dense")
    total = b.node("Add", [b.batchnorm("x", 4, "bn"), product], "sum")
    folded = fold_and_compare(b.model((4, 5), [total], batch=2), (4, 5), batches=(2,))
    assert folded.report.entries[0].direction == "parallel"


@pytest.mark.parametrize("pads", [[1, 0], [1, 1], [2, 2], [0, 2]])
def test_a_batchnorm_before_a_maximum_whose_last_window_lies_over_padding_folds(pads: list[int]) -> None:
    """onnx.reference can not compute it, so that the answers here are those of the maximum of a padded value."""
    b = GraphBuilder(np.random.default_rng(12))
    normal = b.batchnorm("x", 3, "bn", positive=True)
    pooled = b.node("MaxPool", [normal], "pool", kernel_shape=[3], pads=pads)
    model = b.model((3, 6), [b.node("Conv", [pooled, b.weight("w", 2, 3, 1)], "conv")])
    folded = fold(model)
    assert folded.report.entries[0].into == ("conv",)
    x = np.random.default_rng(1).normal(size=(2, 3, 6))
    assert_same_answers(_padded_apart(model, pads), _padded_apart(folded.model, pads), x)


def _padded_apart(model: ir.Model, pads: list[int]) -> ir.Model:
    """The same with a Pad of −∞ before the maximum."""
    model = model.clone()
    pool = next(node for node in model.graph if node.op_type == "MaxPool")
    values = {"around": np.array([0, 0, pads[0], 0, 0, pads[1]]), "least": np.array(-np.inf)}
    initializers = [ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in values.items()]
    for value in initializers:
        model.graph.register_initializer(value)
    pad = ir.Node("", "Pad", [pool.inputs[0], *initializers], name="pad")
    pad.outputs[0].name = "padded"
    model.graph.insert_before(pool, pad)
    pool.replace_input_with(0, pad.outputs[0])
    del pool.attributes["pads"]
    return model


def test_a_weight_that_two_layers_share_is_copied_before_it_is_changed() -> None:
    b = GraphBuilder(np.random.default_rng(4))
    shared = b.weight("shared", 6, 4)
    left = b.batchnorm(b.node("Gemm", ["x", shared], "left"), 4, "bn")
    right = b.node("Gemm", ["x", shared], "right")
    folded = fold_and_compare(b.model((6,), [left, right]), (6,))
    assert num_batchnorms(folded.model) == 0
    assert np.array_equal(folded.model.graph.initializers["shared"].const_value.numpy(), b.weights["shared"])  # type: ignore[union-attr]


def test_parameters_that_bias_and_batchnorm_share_do_not_disturb_each_other() -> None:
    """Exporters deduplicate equal tensors: one zero vector can be a bias, an offset and a mean at once."""
    b = GraphBuilder(np.random.default_rng(5))
    zeros = b.constant("zeros", np.zeros(4))
    dense = b.node("Gemm", ["x", b.weight("w", 6, 4), zeros], "dense")
    var = b.constant("var", [0.1, 1.0, 2.0, 3.0])
    output = b.node("BatchNormalization", [dense, b.weight("scale", 4), b.weight("offset", 4), zeros, var], "bn")
    other = b.node("Gemm", ["x", b.weight("w2", 6, 4), zeros], "other")
    folded = fold_and_compare(b.model((6,), [output, other]), (6,))
    assert num_batchnorms(folded.model) == 0


def test_a_batchnorm_whose_output_is_the_models_keeps_that_name() -> None:
    model, instance_shape = _model(_matmul_then)
    folded = fold_and_compare(model, instance_shape)
    assert [output.name for output in folded.model.graph.outputs] == ["bn_out"]


def test_a_matmul_that_is_the_models_output_keeps_that_name_when_a_shift_is_added_behind_it() -> None:
    model, instance_shape = _model(_then_matmul)
    folded = fold_and_compare(model, instance_shape)
    assert [output.name for output in folded.model.graph.outputs] == ["dense_out"]


def test_parameters_in_constant_nodes_fold_like_initializers() -> None:
    model, instance_shape = _model(_gemm_then)
    for value in list(model.graph.initializers.values()):
        node = ir.node("Constant", [], {"value": value.const_value}, num_outputs=1)
        model.graph.insert_before(model.graph[0], node)
        value.replace_all_uses_with(node.outputs[0])
        del model.graph.initializers[str(value.name)]
    folded = fold_and_compare(model, instance_shape)
    assert [node.op_type for node in folded.model.graph] == ["Gemm"]


def test_layers_without_names_do_not_get_the_same_one() -> None:
    b = GraphBuilder(np.random.default_rng(6))
    hidden = b.batchnorm(b.node("MatMul", ["x", b.weight("w0", 6, 5)], "first"), 5, "bn0")
    output = b.batchnorm(b.node("MatMul", [hidden, b.weight("w1", 5, 3)], "second"), 3, "bn1")
    model = b.model((6,), [output])
    for node in model.graph:
        node.name = None
    folded = fold_and_compare(model, (6,))
    names = [node.name for node in folded.model.graph if node.name]
    assert len(names) == len(set(names))
    assert compare_models(model, folded.model).not_compared or num_batchnorms(folded.model) == 0


def test_a_constant_without_a_name_is_not_given_one_in_the_callers_model() -> None:
    model, _ = _model(_gemm_then)
    weight = model.graph.initializers["dense.weight"]
    assert weight.const_value is not None
    values = weight.const_value.numpy()
    node = ir.node("Constant", [], {"value": ir.tensor(values)}, num_outputs=1)
    model.graph.insert_before(model.graph[0], node)
    weight.replace_all_uses_with(node.outputs[0])
    del model.graph.initializers["dense.weight"]
    fold(model)
    assert node.attributes["value"].as_tensor().name is None


def test_the_ledger_names_the_axis_of_the_channels() -> None:
    """1 for a BatchNormalization by definition; the last one for arithmetic that Keras writes channels-last."""
    b = GraphBuilder(np.random.default_rng(7))
    scaled = b.node("Mul", ["x", b.weight("s", 1, 1, 1, 3)], "frozen")
    shifted = b.node("Add", [scaled, b.weight("t", 1, 1, 1, 3)], "shift")
    first = b.node("Transpose", [shifted], "turn", perm=[0, 3, 1, 2])
    conv = b.node("Conv", [first, b.weight("w", 4, 3, 2, 2)], "conv")
    folded = fold_and_compare(b.model((5, 4, 3), [b.batchnorm(conv, 4, "bn")]), (5, 4, 3))
    assert {entry.batchnorm: entry.axis for entry in folded.report.entries} == {"frozen": 3, "bn": 1}
