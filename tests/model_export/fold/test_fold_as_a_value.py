"""Folding is a function: it leaves its argument alone, does nothing twice, and changes only what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from model_export.errors import FoldInvalid
from model_export.fold import fold
from model_export.fold.files import load_model, save_model
from tests.model_export.fold.graphs import GraphBuilder


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


def test_folding_needs_no_torch() -> None:
    code = "import sys, model_export.fold, model_export.fold.files; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(FoldInvalid, match="no file"):
        save_model(_book_network(), tmp_path)
