"""Every trap: the BatchNorm stays, the ledger says why, and the answers are the raw graph's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_export.errors import LedgerUnbalanced
from model_export.fold import fold
from model_export.fold.ledger import Fold, Refusal, Subject, check_balance
from tests.model_export.fold.graphs import GraphBuilder, assert_same_answers, num_batchnorms

Build = Callable[[GraphBuilder], tuple[list[str], tuple[int, ...]]]


def _padded_convolution(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    conv = [b.batchnorm("x", 3, "bn"), b.weight("w", 2, 3, 3, 3)]
    return [b.node("Conv", conv, "conv", pads=[1, 1, 1, 1])], (3, 5, 5)


def _automatically_padded_convolution(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    conv = [b.batchnorm("x", 3, "bn"), b.weight("w", 2, 3, 3, 3)]
    return [b.node("Conv", conv, "conv", auto_pad="SAME_UPPER")], (3, 5, 5)


def _output_read_twice(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    dense = b.gemm("x", 4, 4, "dense")
    return [b.node("Relu", [b.batchnorm(dense, 4, "bn")], "relu"), b.node("Relu", [dense], "relu2")], (4,)


def _output_is_the_models(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    dense = b.gemm("x", 4, 4, "dense")
    return [dense, b.node("Relu", [b.batchnorm(dense, 4, "bn")], "relu")], (4,)


def _normalised_value_is_the_models(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    normal = b.batchnorm("x", 4, "bn")
    return [normal, b.gemm(normal, 4, 2, "dense")], (4,)


def _one_reader_can_not_absorb(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    normal = b.batchnorm("x", 4, "bn")
    return [b.gemm(normal, 4, 2, "dense"), b.node("Relu", [normal], "relu")], (4,)


def _matmul_on_tokens(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    """(batch, 4, 4) @ (4, 4): the BatchNorm's channels are axis 1, MatMul's outputs are axis 2; the sizes agree."""
    return [b.batchnorm(b.node("MatMul", ["x", b.weight("w", 4, 4)], "dense"), 4, "bn")], (4, 4)


def _before_matmul_on_tokens(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    return [b.node("MatMul", [b.batchnorm("x", 4, "bn"), b.weight("w", 4, 4)], "dense")], (4, 4)


def _transpose_between(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    """The trap that ONNX Runtime itself falls into: after the transpose, axis 1 is not MatMul's output axis."""
    product = b.node("MatMul", ["x", b.weight("w", 4, 3)], "dense")
    return [b.batchnorm(b.node("Transpose", [product], "turn", perm=[1, 0]), 3, "bn")], (4,)


def _reshape_that_mixes(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    """(batch, 4, 3) becomes (batch·3, 4): columns are no longer channels."""
    target = b.constant("target", np.array([-1, 4], dtype=np.int64))
    flat = b.node("Reshape", [b.batchnorm("x", 4, "bn"), target], "mix")
    return [b.gemm(flat, 4, 2, "dense")], (4, 3)


def _bias_for_each_instance(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    inputs = ["x", b.weight("w", 4, 4), b.weight("c", 3, 1)]
    return [b.batchnorm(b.node("Gemm", inputs, "dense"), 4, "bn")], (4,)


def _weight_depends_on_the_input(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    """Squeeze and excitation, on the weight: it is another one for each batch."""
    gate = b.node("ReduceMean", ["x", b.constant("axes", np.array([0], dtype=np.int64))], "gate", keepdims=0)
    weight = b.node("Mul", [gate, b.weight("w", 4, 4)], "computed")
    return [b.batchnorm(b.node("Gemm", ["x", weight], "dense"), 4, "bn")], (4,)


def _read_as_a_bias(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    return [b.node("Gemm", ["x", b.weight("w", 4, 4), b.batchnorm("x", 4, "bn")], "dense")], (4,)


def _behind_a_sum_with_an_input(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    total = b.node("Add", [b.gemm("x", 4, 4, "left"), "x"], "sum")
    return [b.node("Relu", [b.batchnorm(total, 4, "bn")], "relu")], (4,)


def _alone(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    return [b.batchnorm("x", 4, "bn")], (4,)


def _constant_by_batch(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
    return [b.batchnorm(b.gemm("x", 4, 4, "dense"), 4, "bn", training_mode=1)], (4,)


TRAPS = [
    (_padded_convolution, "pads with zeros"),
    (_automatically_padded_convolution, "pads with zeros"),
    (_output_read_twice, "has 2 readers (bn, relu2)"),
    (_output_is_the_models, "is an output of the model"),
    (_normalised_value_is_the_models, "is an output of the model"),
    (_one_reader_can_not_absorb, "Relu (relu) keeps a scale, but not the shift"),
    (_matmul_on_tokens, "neither sums over nor makes"),
    (_before_matmul_on_tokens, "neither sums over nor makes"),
    (_transpose_between, "neither sums over nor makes"),
    (_reshape_that_mixes, "not proved to keep channels together"),
    (_bias_for_each_instance, "not one value for each of 4 outputs"),
    (_weight_depends_on_the_input, "is not constant"),
    (_read_as_a_bias, "does not read it as its input"),
    (_behind_a_sum_with_an_input, "x has 2 readers (left, sum)"),
    (_alone, "is an input of the graph"),
    (_constant_by_batch, "it is in training mode"),
]


@pytest.mark.parametrize(("build", "reason"), TRAPS)
def test_a_batchnorm_that_can_not_be_folded_exactly_stays_and_says_why(build: Build, reason: str) -> None:
    b = GraphBuilder(np.random.default_rng(0))
    outputs, instance_shape = build(b)
    model = b.model(instance_shape, outputs)
    folded = fold(model)
    (entry,) = folded.report.entries
    assert entry.outcome == "kept"
    assert reason in entry.reason
    assert num_batchnorms(folded.model) == 1
    batch = 3  # the bias for each instance has three rows
    assert_same_answers(model, folded.model, np.random.default_rng(1).normal(size=(batch, *instance_shape)))


def _dense_and_batchnorm(**parameters: Any) -> GraphBuilder:
    b = GraphBuilder(np.random.default_rng(0))
    b.batchnorm(b.gemm("x", 4, 4, "dense"), 4, "bn")
    for name, values in parameters.items():
        b.constant(f"bn.{name}", values)
    return b


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"mean": [np.nan, 0, 0, 0]}, "not all finite"),
        ({"scale": [np.inf, 0, 0, 0]}, "not all finite"),
        ({"var": [1.0, -0.5, 1.0, 1.0]}, "negative in channel 1"),
    ],
)
def test_parameters_that_make_no_finite_map_are_not_baked_into_weights(
    parameters: dict[str, list[float]], reason: str
) -> None:
    (entry,) = fold(_dense_and_batchnorm(**parameters).model((4,), ["bn_out"])).report.entries
    assert reason in entry.reason


def test_a_weight_that_a_caller_may_override_is_not_a_constant() -> None:
    b = _dense_and_batchnorm()
    overridable = helper.make_tensor_value_info("dense.weight", TensorProto.DOUBLE, [4, 4])
    (entry,) = fold(b.model((4,), ["bn_out"], inputs=(overridable,))).report.entries
    assert "a caller may override it" in entry.reason


def test_a_fold_that_would_overflow_float16_is_refused() -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float16)
    b.batchnorm(b.gemm("x", 4, 4, "dense"), 4, "bn")
    b.constant("bn.scale", [6e4] * 4)
    b.constant("bn.var", [0.0] * 4)
    (entry,) = fold(b.model((4,), ["bn_out"])).report.entries
    assert "would overflow float16" in entry.reason


def test_a_stated_shape_that_does_not_follow_from_the_inputs_proves_nothing() -> None:
    """The file says that the reshape keeps channels together; it does not."""
    b = GraphBuilder(np.random.default_rng(0))
    outputs, instance_shape = _reshape_that_mixes(b)
    model = b.model(instance_shape, outputs)
    reshape = next(node for node in model.graph if node.op_type == "Reshape")
    reshape.outputs[0].shape = ir.Shape(["batch", 12])
    (entry,) = fold(model).report.entries
    assert "not proved" in entry.reason


def test_a_batchnorm_in_the_body_of_an_if_is_accounted_for() -> None:
    b = _dense_and_batchnorm()
    normal = helper.make_node(
        "BatchNormalization", ["x", *(f"bn.{w}" for w in ("scale", "offset", "mean", "var"))], ["t"]
    )
    same = helper.make_node("Identity", ["x"], ["e"])
    then, other = (
        helper.make_graph([node], "body", [], [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None)])
        for node, name in ((normal, "t"), (same, "e"))
    )
    b.constant("yes", np.array(1, dtype=np.int64))
    b.node("If", [b.node("Cast", ["yes"], "bool", to=TensorProto.BOOL)], "branch", then_branch=then, else_branch=other)
    entries = fold(b.model((4,), ["bn_out", "branch_out"])).report.entries
    assert [(entry.batchnorm, entry.outcome) for entry in entries] == [("bn", "folded"), ("t", "kept")]
    assert "body" in entries[1].reason


def _if(b: GraphBuilder, node: onnx.NodeProto, weights: dict[str, np.ndarray], output: str, stated: Any = None) -> str:
    """An If on a constant condition whose first branch is `node`, with weights of its own."""
    initializers = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    value_info = [] if stated is None else [stated]
    result = helper.make_tensor_value_info(output, TensorProto.DOUBLE, None)
    then = helper.make_graph([node], "then", [], [result], initializers, value_info=value_info)
    zero = helper.make_node("Constant", [], ["e"], value=numpy_helper.from_array(np.zeros((1, 2))))
    other = helper.make_graph([zero], "else", [], [helper.make_tensor_value_info("e", TensorProto.DOUBLE, None)])
    b.constant("yes", np.array(1, dtype=np.int64))
    condition = b.node("Cast", ["yes"], "bool", to=TensorProto.BOOL)
    return b.node("If", [condition], "branch", then_branch=then, else_branch=other)


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_a_reader_in_the_body_of_an_if_keeps_the_batchnorm(op: str) -> None:
    """Its weight `w` is a name of the body's own: a folded one in the main graph would be shadowed by it."""
    b = GraphBuilder(np.random.default_rng(0))
    normal = b.batchnorm("x", 4, "bn")
    inside = helper.make_node(op, [normal, "w"], ["z"], name="inside")
    model = b.model((4,), [_if(b, inside, {"w": b.rng.normal(size=(4, 2))}, "z")])
    folded = fold(model)
    assert "in the body of a control-flow node" in folded.report.entries[0].reason
    assert_same_answers(model, folded.model, np.random.default_rng(1).normal(size=(3, 4)))


def test_a_bias_that_is_added_in_the_body_of_an_if_is_not_the_layers() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    product = b.node("MatMul", [b.batchnorm("x", 4, "bn"), b.weight("w", 4, 2)], "dense")
    inside = helper.make_node("Add", [product, "c"], ["z"], name="inside")
    model = b.model((4,), [_if(b, inside, {"c": b.rng.normal(size=2)}, "z")])
    assert_same_answers(model, fold(model).model, np.random.default_rng(1).normal(size=(3, 4)))


def test_a_batchnorm_whose_output_a_body_reads_folds_into_the_layer_before_it() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    normal = b.batchnorm(b.gemm("x", 4, 2, "dense"), 2, "bn")
    model = b.model((4,), [_if(b, helper.make_node("Relu", [normal], ["z"]), {}, "z")])
    folded = fold(model)
    assert folded.report.entries[0].direction == "previous"
    assert_same_answers(model, folded.model, np.random.default_rng(1).normal(size=(3, 4)))


def test_a_shape_that_a_caller_may_override_proves_no_rank() -> None:
    """With another target the MatMul has three axes, and its outputs are not the BatchNorm's channels."""
    b = GraphBuilder(np.random.default_rng(0))
    target = b.constant("target", np.array([-1, 4], dtype=np.int64))
    product = b.node("MatMul", [b.node("Reshape", ["x", target], "turn"), b.weight("w", 4, 4)], "dense")
    overridable = helper.make_tensor_value_info("target", TensorProto.INT64, ["k"])
    (entry,) = fold(b.model((4,), [b.batchnorm(product, 4, "bn")], inputs=(overridable,))).report.entries
    assert "the number of axes of dense_out is not known" in entry.reason


@pytest.mark.parametrize("num_inputs", [1, 4])
def test_a_batchnorm_with_inputs_missing_is_kept_and_says_so(num_inputs: int) -> None:
    model = _dense_and_batchnorm().model((4,), ["bn_out"])
    node = next(node for node in model.graph if node.op_type == "BatchNormalization")
    node.resize_inputs(num_inputs)
    (entry,) = fold(model).report.entries
    assert "(absent) is not constant" in entry.reason


def _layer_between(op: str, inputs: list[str], **attributes: Any) -> Build:
    """A layer or a node in its place, with a BatchNorm on each side."""

    def build(b: GraphBuilder) -> tuple[list[str], tuple[int, ...]]:
        weights = {"w": (4, 4, 1), "m": (4, 4), "c": (4,), "k": (4, 1)}
        given = [b.weight(name, *weights[name]) if name in weights else name for name in inputs]
        for name, values in {"axes": [2], "pads": [0, 0, 1, 0, 0, 1], "zero": [0], "far": [9]}.items():
            b.constant(name, np.array(values, dtype=np.int64))
        before = b.batchnorm("x", 4, "before")
        node = b.node(op, [before if name == "x" else name for name in given], "node", **attributes)
        return [b.batchnorm(node, 4, "behind")], (4,) if op in {"Gemm", "MatMul"} else (4, 5)

    return build


SPOILED = [
    _layer_between("Gemm", ["x", "m", "c"]),
    _layer_between("MatMul", ["x", "m"]),
    _layer_between("Conv", ["x", "w", "c"]),
    _layer_between("ConvTranspose", ["x", "w", "c"]),
    _layer_between("Add", ["x", "k"]),
    _layer_between("Div", ["x", "k"]),
    _layer_between("Sum", ["x", "k"]),
    _layer_between("PRelu", ["x", "k"]),
    _layer_between("Concat", ["x", "x"], axis=2),
    _layer_between("Slice", ["x", "zero", "far", "axes"]),
    _layer_between("Pad", ["x", "pads"], mode="edge"),
    _layer_between("ReduceMean", ["x", "axes"]),
    _layer_between("Cast", ["x"], to=TensorProto.DOUBLE),
    _layer_between("MaxPool", ["x"], kernel_shape=[2]),
]


@pytest.mark.parametrize("build", SPOILED)
def test_a_node_whose_inputs_or_attributes_are_missing_is_no_reason_for_a_traceback(build: Build) -> None:
    """The model is not valid. Whatever becomes of its BatchNorms, each has an entry."""
    for spoil in _ways_to_spoil():
        b = GraphBuilder(np.random.default_rng(0))
        outputs, instance_shape = build(b)
        model = b.model(instance_shape, outputs)
        spoil(next(node for node in model.graph if node.name == "node"))
        names = [entry.batchnorm for entry in fold(model).report.entries if entry.form == "BatchNormalization"]
        assert names == ["before", "behind"]


def _ways_to_spoil() -> list[Callable[[ir.Node], object]]:
    """Cut off all inputs from one on, leave one out, or forget the attributes."""
    cut = [lambda node, k=k: node.resize_inputs(min(k, len(node.inputs))) for k in range(3)]
    left_out = [lambda node, k=k: k < len(node.inputs) and node.replace_input_with(k, None) for k in range(3)]
    return [*cut, *left_out, lambda node: node.attributes.clear()]


def test_parameters_of_other_lengths_than_one_another_are_refused() -> None:
    (entry,) = fold(_dense_and_batchnorm(var=[1.0]).model((4,), ["bn_out"])).report.entries
    assert "expected one value a channel" in entry.reason


def test_a_chain_too_long_to_follow_is_kept_and_says_so() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    value = b.gemm("x", 4, 4, "dense")
    for index in range(2000):
        value = b.node("Identity", [value], f"same{index}")
    (entry,) = fold(b.model((4,), [b.batchnorm(value, 4, "bn")])).report.entries
    assert "too long to follow" in entry.reason


BN = Subject("bn")


@pytest.mark.parametrize(
    ("decisions", "before", "after"),
    [
        ((), ("bn",), ("bn",)),
        ((Fold(BN, ("dense",), "next"),), ("bn",), ("bn",)),
        ((Refusal(BN, "why"),), ("bn",), ()),
        ((Refusal(BN, "why"), Refusal(BN, "why")), ("bn",), ("bn",)),
    ],
)
def test_an_account_that_does_not_add_up_is_an_error(decisions: Any, before: Any, after: Any) -> None:
    with pytest.raises(LedgerUnbalanced, match="does not add up"):
        check_balance(decisions, before, after)


def test_arithmetic_that_stands_for_a_batchnorm_is_no_batchnormalization_to_count() -> None:
    check_balance((Refusal(Subject("scale", "decomposed"), "why"),), (), ())
