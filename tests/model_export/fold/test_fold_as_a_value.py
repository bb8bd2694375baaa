"""Folding is a function: it leaves its argument alone, does nothing twice, and changes only what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from model_export.errors import FoldInvalid
from model_export.fold import fold
from model_export.fold.check import compare
from model_export.fold.files import load_model, save_model
from tests.model_export.fold.graphs import GraphBuilder

SINGLE_PRECISION = 1e-5  # a few dozen float32 roundings, relative to the largest output


def _book_network() -> ir.Model:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    hidden = b.node("Elu", [b.gemm(b.batchnorm("x", 6, "bn0"), 6, 5, "dense0")], "elu")
    kept = b.node("LayerNormalization", [hidden, b.weight("ln", 5)], "layernorm")
    return b.model((6,), [b.gemm(b.batchnorm(kept, 5, "bn1"), 5, 3, "dense1")])


def _bytes(model: ir.Model) -> bytes:
    content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return content


def test_the_model_that_was_given_is_as_it_was() -> None:
    model = _book_network()
    before = _bytes(model)
    fold(model)
    assert _bytes(model) == before


def test_folding_a_folded_model_changes_no_byte(tmp_path: Path) -> None:
    save_model(fold(_book_network()).model, tmp_path / "once.onnx")
    save_model(fold(load_model(tmp_path / "once.onnx")).model, tmp_path / "twice.onnx")
    assert (tmp_path / "once.onnx").read_bytes() == (tmp_path / "twice.onnx").read_bytes()


def test_nodes_that_are_not_ours_stay_as_they_were() -> None:
    def layernorms(model: ir.Model) -> list[bytes]:
        nodes = ir.to_proto(model).graph.node
        return [node.SerializeToString(deterministic=True) for node in nodes if node.op_type == "LayerNormalization"]

    model = _book_network()
    assert layernorms(fold(model).model) == layernorms(model)


def test_parameters_of_folded_batchnorms_are_gone_and_weights_keep_their_names() -> None:
    folded = fold(_book_network()).model
    assert set(folded.graph.initializers) == {"dense0.weight", "dense0.bias", "ln", "dense1.weight", "dense1.bias"}


def test_the_report_counts_the_nodes_that_compute() -> None:
    report = fold(_book_network()).report
    assert (report.num_nodes_before, report.num_nodes_after) == (6, 4)


@pytest.mark.parametrize("content", [b"", b"<html>not here</html>", bytes(range(256))])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(FoldInvalid, match=r"model\.onnx") as caught:
        load_model(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FoldInvalid, match="there is no such file"):
        load_model(tmp_path / "absent.onnx")


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FoldInvalid, match="can not be written"):
        save_model(_book_network(), tmp_path / "file" / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_last_look_sees_a_wrong_fold_and_passes_a_right_one() -> None:
    model = _book_network()
    right = fold(model).model
    assert (compare(model, right).relative_difference or 0) < SINGLE_PRECISION
    wrong = right.clone()
    bias = wrong.graph.initializers["dense1.bias"]
    bias.const_value = ir.tensor(bias.const_value.numpy() * 1.5)  # type: ignore[union-attr]
    with pytest.raises(FoldInvalid, match="answers differently"):
        compare(model, wrong)


def test_the_last_look_says_why_it_could_not_look() -> None:
    model = _book_network()
    model.graph.inputs[0].shape = ir.Shape(["batch", "features"])
    assert "does not run here" in compare(model, fold(model).model).not_compared


def test_folding_needs_no_torch() -> None:
    code = "import sys, model_export.fold, model_export.fold.files; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


def _unary(op: str, dtype: type = np.float32) -> ir.Model:
    b = GraphBuilder(np.random.default_rng(0), dtype=dtype)
    return b.model((6,), [b.node(op, [b.batchnorm(b.gemm("x", 6, 5, "dense"), 5, "bn")], "last")])


@pytest.mark.parametrize("op", ["Log", "Sqrt", "Reciprocal", "Relu"])
def test_infinities_and_nans_on_both_sides_are_no_difference(op: str) -> None:
    model = _unary(op)
    assert (compare(model, fold(model).model).relative_difference or 0) < SINGLE_PRECISION


def test_a_random_model_is_not_compared() -> None:
    model = _unary("RandomNormalLike")
    assert "random" in compare(model, fold(model).model).not_compared


def test_a_model_without_floating_point_outputs_is_not_compared() -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    label = b.node("ArgMax", [b.batchnorm(b.gemm("x", 6, 5, "dense"), 5, "bn")], "label")
    graph = ir.to_proto(b.model((6,), [label])).graph
    graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    assert "floating-point" in compare(model, fold(model).model).not_compared


def test_half_precision_is_compared_with_room_for_its_rounding() -> None:
    model = _unary("Relu", np.float16)
    assert compare(model, fold(model).model).relative_difference is not None


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(FoldInvalid, match="no file"):
        save_model(_book_network(), tmp_path)
