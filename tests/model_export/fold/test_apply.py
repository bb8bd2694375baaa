"""Carrying out an edit: names keep their meaning, shared weights are copied, and nothing that is not read is left."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_export.fold import fold
from model_export.fold.apply import Names, apply_edit
from model_export.fold.constants import Exact
from model_export.fold.edit import Edit
from model_export.fold.scope import Scope, scopes_of
from model_export.fold.shapes import prove_shapes
from tests.model_export.fold.graphs import GraphBuilder, assert_same_answers, fold_and_compare, num_batchnorms, run


def _scope(model: ir.Model) -> Scope:
    (scope,) = scopes_of(model, prove_shapes(model))
    return scope


def _exact(values: np.ndarray) -> Exact:
    return Exact(lambda: values, values.shape, ir.DataType.DOUBLE)


def _node(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)


def _two_dense_layers_of_one_weight() -> tuple[GraphBuilder, ir.Model]:
    b = GraphBuilder(np.random.default_rng(0))
    shared = b.weight("shared", 4, 4)
    hidden = b.node("MatMul", ["x", shared], "first")
    return b, b.model((4,), [b.node("MatMul", [b.node("Elu", [hidden], "elu"), shared], "second")])


# --- constants -------------------------------------------------------------------------------------------------------


def test_a_constant_that_somebody_else_reads_stays_and_the_new_one_gets_a_name_of_its_own() -> None:
    b, model = _two_dense_layers_of_one_weight()
    new = np.eye(4)
    apply_edit(Edit(constants={(_node(model, "first"), 1): _exact(new)}), _scope(model), Names(model))
    read = [_node(model, name).inputs[1] for name in ("first", "second")]
    assert [value.name for value in read if value is not None] == ["shared.folded", "shared"]
    x = np.random.default_rng(1).normal(size=(3, 4))
    elu = np.where(x > 0, x, np.expm1(x))
    np.testing.assert_allclose(run(model, x)[0], elu @ b.weights["shared"], rtol=1e-12)


def test_a_constant_that_nobody_else_reads_is_replaced_under_its_name() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    model = b.model((4,), [b.node("MatMul", ["x", b.weight("w", 4, 3)], "dense")])
    apply_edit(Edit(constants={(_node(model, "dense"), 1): _exact(np.ones((4, 3)))}), _scope(model), Names(model))
    assert list(model.graph.initializers) == ["w"]
    x = np.random.default_rng(1).normal(size=(3, 4))
    np.testing.assert_allclose(run(model, x)[0], x @ np.ones((4, 3)), rtol=1e-12)


def test_an_input_that_was_left_out_is_added_under_a_name_that_tells_whose_it_is() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    model = b.model((4,), [b.gemm("x", 4, 3, "dense")])
    apply_edit(Edit(constants={(_node(model, "dense"), 2): _exact(np.arange(3.0))}), _scope(model), Names(model))
    assert set(model.graph.initializers) == {"dense.weight", "dense.bias"}
    x = np.random.default_rng(1).normal(size=(3, 4))
    np.testing.assert_allclose(run(model, x)[0], x @ b.weights["dense.weight"] + np.arange(3), rtol=1e-12)


# --- names -----------------------------------------------------------------------------------------------------------


def test_no_name_is_given_twice_not_even_in_a_body() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    b.constant("yes", np.array(1, dtype=np.int64))
    inside = helper.make_node("Identity", ["x"], ["w.folded"], name="w.folded0")
    body = helper.make_graph([inside], "b", [], [helper.make_tensor_value_info("w.folded", TensorProto.DOUBLE, None)])
    condition = b.node("Cast", ["yes"], "bool", to=TensorProto.BOOL)
    names = Names(b.model((4,), [b.node("If", [condition], "branch", then_branch=body, else_branch=body)]))
    assert [names.new("x"), names.new("w"), names.new("w"), names.new("w")] == [
        "x.folded",
        "w",
        "w.folded1",
        "w.folded2",
    ]


def test_a_value_that_holds_something_else_gets_another_name() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    hidden = b.batchnorm(b.node("Elu", [b.gemm("x", 4, 3, "dense0")], "elu"), 3, "bn")
    flat = b.node("Dropout", [hidden], "drop")
    folded = fold_and_compare(b.model((4,), [b.gemm(flat, 3, 2, "dense1")]), (4,)).model
    names = {value.name for node in folded.graph for value in node.outputs}
    assert names == {"dense0_out", "elu_out", "drop_out.folded", "dense1_out"}


def test_a_shifted_value_takes_over_the_name_and_what_is_not_yet_shifted_gets_another() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    product = b.node("MatMul", ["x", b.weight("w", 4, 3)], "dense")
    model = b.model((4,), [b.node("Elu", [product], "elu")])
    x = np.random.default_rng(1).normal(size=(3, 4))
    apply_edit(Edit(shifts={_node(model, "dense").outputs[0]: _exact(np.ones(3))}), _scope(model), Names(model))
    assert [(node.name, node.outputs[0].name) for node in model.graph] == [
        ("dense", "dense_out.unshifted"),
        ("dense.shift", "dense_out"),
        ("elu", "elu_out"),
    ]
    shifted = x @ b.weights["w"] + 1
    np.testing.assert_allclose(run(model, x)[0], np.where(shifted > 0, shifted, np.expm1(shifted)), rtol=1e-12)


# --- what goes -------------------------------------------------------------------------------------------------------


def test_expressions_of_constants_that_nobody_reads_any_more_go_too() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    weight = b.node("Transpose", [b.node("Neg", [b.weight("w", 3, 4)], "negative")], "turned", perm=[1, 0])
    model = b.model((4,), [b.batchnorm(b.node("MatMul", ["x", weight], "dense"), 3, "bn")])
    folded = fold_and_compare(model, (4,)).model
    assert [node.op_type for node in folded.graph] == ["MatMul", "Add"]
    assert len(folded.graph.initializers) == 2


def test_expressions_that_somebody_else_reads_stay() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    weight = b.node("Neg", [b.weight("w", 4, 4)], "negative")
    normal = b.batchnorm(b.node("MatMul", ["x", weight], "dense"), 4, "bn")
    folded = fold_and_compare(b.model((4,), [normal, b.node("MatMul", ["x", weight], "other")]), (4,)).model
    assert "negative" in {node.name for node in folded.graph}


# --- functions -------------------------------------------------------------------------------------------------------


def _model_with_a_function(*, calls: int = 1) -> ir.Model:
    """A function with a convolution and a BatchNorm, whose weights are Constants: it can hold no initializers."""
    rng = np.random.default_rng(0)
    values = {"w": rng.normal(size=(3, 3, 1)), "scale": rng.normal(size=3), "offset": rng.normal(size=3)}
    values |= {"mean": rng.normal(size=3), "var": 10.0 ** rng.uniform(-2, 2, size=3)}
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)) for name, array in values.items()
    ]
    nodes.append(helper.make_node("Conv", ["X", "w"], ["c"], name="conv"))
    nodes.append(helper.make_node("BatchNormalization", ["c", "scale", "offset", "mean", "var"], ["Y"], name="bn"))
    opset = helper.make_opsetid("", 20)
    block = helper.make_function("local", "Block", ["X"], ["Y"], nodes, [opset])
    value = "x"
    calling = []
    for k in range(calls):
        calling.append(helper.make_node("Block", [value], [f"y{k}"], domain="local", name=f"block{k}"))
        value = f"y{k}"
    graph = helper.make_graph(
        calling,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["batch", 3, 5])],
        [helper.make_tensor_value_info(value, TensorProto.DOUBLE, ["batch", 3, 5])],
    )
    imports = [opset, helper.make_opsetid("local", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, functions=[block], ir_version=9))


@pytest.mark.parametrize("calls", [1, 2])
def test_in_a_function_new_constants_are_constant_nodes(calls: int) -> None:
    model = _model_with_a_function(calls=calls)
    folded = fold(model)
    onnx.checker.check_model(ir.to_proto(folded.model), full_check=True)
    assert [entry.into for entry in folded.report.entries] == [("conv",)]
    (function,) = folded.model.functions.values()
    assert [node.op_type for node in function.graph] == ["Constant", "Constant", "Conv"]
    assert not folded.model.graph.initializers
    assert_same_answers(model, folded.model, np.random.default_rng(1).normal(size=(2, 3, 5)))


def test_a_batchnorm_is_never_folded_across_the_border_of_a_function() -> None:
    """The layer outside calls the function once; others may call it too."""
    model = _model_with_a_function()
    (function,) = model.functions.values()
    conv, bn = (node for node in function.graph if node.op_type != "Constant")
    bn.replace_input_with(0, conv.inputs[0])
    function.graph.remove(conv)
    folded = fold(model)
    assert [entry.outcome for entry in folded.report.entries] == ["kept"]
    assert num_batchnorms(folded.model) == 0  # in the main graph; the function has it
    assert_same_answers(model, folded.model, np.random.default_rng(1).normal(size=(2, 3, 5)))


def test_an_add_that_was_put_in_has_the_dtype_of_what_it_shifts() -> None:
    """A cast behind it is proved to be between floats, as it was before: the second BatchNorm folds at once."""
    b = GraphBuilder(np.random.default_rng(0))
    product = b.node("MatMul", [b.batchnorm("x", 6, "first"), b.weight("w", 6, 4)], "dense")
    same = b.node("Cast", [product], "cast", to=TensorProto.DOUBLE)
    folded = fold_and_compare(b.model((6,), [b.batchnorm(same, 4, "second")]), (6,))
    assert {entry.outcome for entry in folded.report.entries} == {"folded"}
