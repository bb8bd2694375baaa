"""Model files: external data in every state, and a file that appears whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from model_export.errors import FoldInvalid
from model_export.fold import files, fold
from model_export.fold.files import load_model, save_model
from tests.model_export.fold.graphs import GraphBuilder, assert_same_answers, num_batchnorms

WEIGHTS = "weights.bin"


def _network() -> ir.Model:
    """One layer that takes a BatchNorm, and one that stays as it is."""
    b = GraphBuilder(np.random.default_rng(0))
    hidden = b.batchnorm(b.gemm("x", 40, 30, "dense0"), 30, "bn")
    return b.model((40,), [b.gemm(b.node("Elu", [hidden], "elu"), 30, 20, "dense1")])


def _with_external_data(path: Path, location: str = WEIGHTS) -> Path:
    proto = ir.to_proto(_network())
    onnx.save(proto, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def _assert_same(before: ir.Model, after: ir.Model) -> None:
    assert_same_answers(before, after, np.random.default_rng(1).normal(size=(3, 40)))


def _loaded_whole(path: Path) -> ir.Model:
    """As onnx itself reads it."""
    return ir.from_proto(onnx.load(path))


def test_a_model_with_external_data_folds_into_one_with_external_data(tmp_path: Path) -> None:
    model = load_model(_with_external_data(tmp_path / "model.onnx"))
    folded = fold(model)
    save_model(folded.model, tmp_path / "out" / "folded.onnx")
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["folded.onnx", "folded.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "out" / "folded.onnx"), full_check=True)
    _assert_same(_network(), _loaded_whole(tmp_path / "out" / "folded.onnx"))
    assert num_batchnorms(folded.model) == 0


def test_external_data_that_are_missing_are_named(tmp_path: Path) -> None:
    path = _with_external_data(tmp_path / "model.onnx")
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(FoldInvalid, match=r"keeps its weights in weights\.bin, which is not beside it"):
        load_model(path)


def test_external_data_that_are_cut_off_are_refused_before_anything_is_folded(tmp_path: Path) -> None:
    path = _with_external_data(tmp_path / "model.onnx")
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[:-1])
    with pytest.raises(FoldInvalid, match=rf"too short: .* the file at {len(content) - 1}; copy it again"):
        load_model(path)


def test_a_model_too_large_for_protobuf_gets_a_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is made small, not the model large; see test_large_files.py for the other way round."""
    monkeypatch.setattr(files, "PROTOBUF_LIMIT", 1000)
    folded = fold(_network())
    save_model(folded.model, tmp_path / "folded.onnx")
    assert (tmp_path / "folded.onnx").stat().st_size < 2000
    assert (tmp_path / "folded.onnx.data").stat().st_size >= 40 * 30 * 8
    _assert_same(_network(), _loaded_whole(tmp_path / "folded.onnx"))


def test_a_model_within_the_limit_is_one_file(tmp_path: Path) -> None:
    save_model(fold(_network()).model, tmp_path / "folded.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["folded.onnx"]


@pytest.mark.parametrize("location", [WEIGHTS, "model.onnx.data"])
def test_a_model_with_external_data_can_be_folded_in_place(tmp_path: Path, location: str) -> None:
    """Also where the new data file has the name of the one that is still read."""
    path = _with_external_data(tmp_path / "model.onnx", location)
    save_model(fold(load_model(path)).model, path)
    _assert_same(_network(), _loaded_whole(path))
    assert num_batchnorms(load_model(path)) == 0


def test_a_model_can_be_folded_in_place_twice(tmp_path: Path) -> None:
    path = _with_external_data(tmp_path / "model.onnx")
    for _ in range(2):
        save_model(fold(load_model(path)).model, path)
    _assert_same(_network(), _loaded_whole(path))


def _failing(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("limit", [2**31, 1000])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Whether the weights would have gone into the model or beside it."""
    monkeypatch.setattr(files, "PROTOBUF_LIMIT", limit)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"what was there")
    monkeypatch.setattr(files, "write_model", _failing)
    monkeypatch.setattr(ir, "save", _failing)
    with pytest.raises(FoldInvalid, match=r"model\.onnx can not be written: .*No space left on device"):
        save_model(_network(), path)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"model.onnx": b"what was there"}


def test_a_write_that_fails_half_way_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(model: ir.Model, path: Path) -> None:
        path.write_bytes(b"half a model")
        _failing()

    path = tmp_path / "model.onnx"
    path.write_bytes(b"what was there")
    monkeypatch.setattr(files, "write_model", half)
    with pytest.raises(FoldInvalid, match="No space left on device"):
        save_model(_network(), path)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"model.onnx": b"what was there"}


def test_a_draft_that_nobody_moves_into_place_leaves_no_trace(tmp_path: Path) -> None:
    with files.drafted(_network(), tmp_path / "model.onnx") as draft:
        assert num_batchnorms(load_model(draft)) == 1
    assert list(tmp_path.iterdir()) == []


def test_never_do_an_old_model_and_new_weights_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the machine stops between the two moves there is no model, which is seen, rather than a wrong one."""
    path = _with_external_data(tmp_path / "model.onnx", "model.onnx.data")
    model = load_model(path)
    with files.drafted(fold(model).model, path) as draft:
        original = Path.replace

        def stopping(self: Path, target: Path) -> Path:
            if self == draft:
                raise OSError(5, "Input/output error")
            return original(self, target)

        monkeypatch.setattr(Path, "replace", stopping)
        with pytest.raises(FoldInvalid, match="can not be written"):
            files.move_into_place(draft, path)
    assert not path.exists()


@pytest.mark.parametrize("num_elements", [1, 127, 128, 129, 16383, 16384, 16385])
def test_a_file_that_is_written_weight_by_weight_is_what_onnx_reads(tmp_path: Path, num_elements: int) -> None:
    """Lengths of one, two and three bytes, and weights on both sides of what counts as large."""
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    model = b.model((num_elements,), [b.node("Add", ["x", b.weight("w", num_elements)], "sum")])
    save_model(model, tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    (weight,) = onnx.load(tmp_path / "model.onnx").graph.initializer
    assert np.array_equal(onnx.numpy_helper.to_array(weight), b.weights["w"])
