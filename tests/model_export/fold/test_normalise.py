"""Models of an old format: initializers leave the inputs where something is folded, and nothing changes elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from model_export.fold import fold
from tests.model_export.fold.graphs import GraphBuilder, assert_same_answers


def _model_of_ir_version(version: int, *, with_batchnorm: bool = True) -> ir.Model:
    """As Caffe2 and early PyTorch wrote it: each weight is an input too."""
    b = GraphBuilder(np.random.default_rng(0))
    dense = b.gemm("x", 4, 3, "dense")
    proto = ir.to_proto(b.model((4,), [b.batchnorm(dense, 3, "bn") if with_batchnorm else dense]))
    proto.ir_version = version
    proto.graph.input.extend(
        helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims) for weight in proto.graph.initializer
    )
    return ir.from_proto(proto)


def _bytes(model: ir.Model) -> bytes:
    content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return content


def test_weights_of_ir_version_3_are_constants_and_are_no_inputs_any_more() -> None:
    model = _model_of_ir_version(3)
    folded = fold(model)
    assert [entry.outcome for entry in folded.report.entries] == ["folded"]
    assert [value.name for value in folded.model.graph.inputs] == ["x"]
    assert folded.model.ir_version == 4
    onnx.checker.check_model(ir.to_proto(folded.model), full_check=True)
    assert_same_answers(model, folded.model, np.random.default_rng(1).normal(size=(3, 4)))


def test_the_model_of_ir_version_3_that_was_given_keeps_its_inputs() -> None:
    model = _model_of_ir_version(3)
    before = _bytes(model)
    fold(model)
    assert _bytes(model) == before


def test_where_nothing_is_folded_a_model_of_ir_version_3_is_the_same_byte_for_byte() -> None:
    model = _model_of_ir_version(3, with_batchnorm=False)
    assert _bytes(fold(model).model) == _bytes(model)


def test_where_all_is_refused_a_model_of_ir_version_3_is_the_same_byte_for_byte() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    proto = ir.to_proto(b.model((4,), [b.batchnorm("x", 4, "bn")]))
    proto.ir_version = 3
    proto.graph.input.extend(
        helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims) for weight in proto.graph.initializer
    )
    model = ir.from_proto(proto)
    folded = fold(model)
    assert [entry.outcome for entry in folded.report.entries] == ["kept"]
    assert _bytes(folded.model) == _bytes(model)


def test_from_ir_version_4_on_a_weight_that_is_an_input_may_be_overridden_and_stays() -> None:
    model = _model_of_ir_version(4)
    folded = fold(model)
    assert [entry.outcome for entry in folded.report.entries] == ["kept"]
    assert _bytes(folded.model) == _bytes(model)
