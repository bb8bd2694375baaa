"""A model above protobuf's 2 GiB, whose weights are mostly a hole in a sparse file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_export.fold import fold
from model_export.fold.files import load_model, save_model

ROWS, COLUMNS = 2**21 + 5, 256  # float32: 2 GiB and 5 rows
LAST = np.array([1.0, -2.0, 3.0], dtype=np.float32)
SINGLE = 1e-6  # relative to the largest answer: float32 rounds at 6e-8, over a sum of 256


def _write(path: Path) -> dict[str, np.ndarray]:
    """An embedding whose last row alone is not zero; then Gemm and BatchNorm, whose weights are in the model."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(COLUMNS, 4)), "scale": rng.normal(size=4), "offset": rng.normal(size=4)}
    weights |= {"mean": rng.normal(size=4), "var": np.abs(rng.normal(size=4))}
    weights = {name: values.astype(np.float32) for name, values in weights.items()}
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[ROWS, COLUMNS])
    table.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "table.bin", "offset": "0", "length": str(ROWS * COLUMNS * 4)}.items():
        table.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Gather", ["table", "words"], ["rows"], name="embedding"),
        helper.make_node("Gemm", ["rows", "w"], ["y"], name="dense"),
        helper.make_node("BatchNormalization", ["y", "scale", "offset", "mean", "var"], ["z"], name="bn"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("words", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4])],
        [table, *(numpy_helper.from_array(values, name) for name, values in weights.items())],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    with (path.parent / "table.bin").open("wb") as file:
        file.seek((ROWS - 1) * COLUMNS * 4)
        file.write(np.resize(LAST, COLUMNS).tobytes())
    return weights


def _answer(weights: dict[str, np.ndarray], row: np.ndarray) -> np.ndarray:
    wide = {name: values.astype(np.float64) for name, values in weights.items()}
    normal = (row @ wide["w"] - wide["mean"]) / np.sqrt(wide["var"] + 1e-5)
    return np.asarray(normal * wide["scale"] + wide["offset"])


@pytest.mark.slow
def test_a_model_above_two_gibibytes_folds_and_answers_as_before(tmp_path: Path) -> None:
    import onnxruntime

    weights = _write(tmp_path / "model.onnx")
    folded = fold(load_model(tmp_path / "model.onnx"))
    assert [entry.into for entry in folded.report.entries] == [("dense",)]
    save_model(folded.model, tmp_path / "folded.onnx")
    assert (tmp_path / "folded.onnx").stat().st_size < 2**20
    assert (tmp_path / "folded.onnx.data").stat().st_size > 2**31
    session = onnxruntime.InferenceSession(tmp_path / "folded.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"words": np.array([ROWS - 1, 0])})
    expected = [_answer(weights, row) for row in (np.resize(LAST, COLUMNS).astype(np.float64), np.zeros(COLUMNS))]
    np.testing.assert_allclose(found, expected, rtol=0, atol=SINGLE * np.abs(expected).max())


@pytest.mark.slow
def test_a_table_above_two_gibibytes_takes_a_batchnorm_itself(tmp_path: Path) -> None:
    """The last row is computed and written like the first."""
    _write(tmp_path / "model.onnx")
    model = load_model(tmp_path / "model.onnx")
    dense, bn = (next(node for node in model.graph if node.name == name) for name in ("dense", "bn"))
    bn.replace_input_with(0, dense.inputs[0])
    model.graph.remove(dense)
    model.graph.initializers.pop("w")
    parameters = {"scale": 2.0, "offset": 0.5, "mean": 1.0, "var": 4.0}
    for name, value in parameters.items():
        values = np.full(COLUMNS, value, dtype=np.float32)
        model.graph.initializers[name].const_value = ir.tensor(values, name=name)
    model.graph.outputs[0].shape = ir.Shape(["batch", COLUMNS])
    folded = fold(model)
    assert [entry.into for entry in folded.report.entries] == [("embedding",)]
    save_model(folded.model, tmp_path / "folded.onnx")
    table = load_model(tmp_path / "folded.onnx").graph.initializers["table"].const_value
    assert table is not None
    gain = 2 / np.sqrt(4 + 1e-5)
    expected = (np.resize(LAST, COLUMNS) - 1.0) * gain + 0.5
    assert np.array_equal(table.numpy()[-1], expected.astype(np.float32))
    assert (table.numpy()[12345] == np.float32(-gain + 0.5)).all()
