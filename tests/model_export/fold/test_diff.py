"""Two models that part are taken apart at the layer that did it; two that answer alike are said to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console

from model_export.commands.diff import run_diff
from model_export.errors import FoldInvalid
from model_export.fold import diff as diff_module
from model_export.fold.check import NUM_FLOORS
from model_export.fold.diff import ModelDiff, diff
from model_export.fold.files import save_model
from tests.model_export.fold.graphs import GraphBuilder

ROOT = Path(__file__).parents[3]
DEPTH, CHANNELS = 30, 8
CHANGE = 0.01  # in biases of about 1


def _convnet(*, changed_layer: int | None = None) -> ir.Model:
    """Convolutions with a BatchNorm behind each; in the changed layer, channel 3 of the bias is larger by CHANGE."""
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    value = "x"
    for layer in range(DEPTH):
        weight = b.constant(f"conv{layer}.weight", b.rng.normal(scale=0.12, size=(CHANNELS, CHANNELS, 3, 3)))
        bias = b.rng.normal(size=CHANNELS)
        bias[3] += CHANGE * (layer == changed_layer)
        value = b.node("Conv", [value, weight, b.constant(f"conv{layer}.bias", bias)], f"conv{layer}", pads=[1] * 4)
        for what in ("scale", "offset", "mean", "var"):
            b.constant(f"bn{layer}.{what}", b.rng.uniform(0.5, 2, size=CHANNELS))
        inputs = [f"bn{layer}.{what}" for what in ("scale", "offset", "mean", "var")]
        value = b.node("Elu", [b.node("BatchNormalization", [value, *inputs], f"bn{layer}")], f"elu{layer}")
    return b.model((CHANNELS, 6, 6), [value])


def _fold_by_hand(model: ir.Model) -> ir.Model:
    """Each BatchNorm into its convolution, which then makes the BatchNorm's output: no engine of ours has a part."""
    proto = ir.to_proto(model)
    weights = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    value = "x"
    for layer in range(DEPTH):
        scale, offset, mean, var = (
            weights[f"bn{layer}.{what}"].astype(np.float64) for what in ("scale", "offset", "mean", "var")
        )
        factor = scale / np.sqrt(var + 1e-5)
        weight = b.constant(f"conv{layer}.weight", weights[f"conv{layer}.weight"] * factor[:, None, None, None])
        bias = b.constant(f"conv{layer}.bias", offset + (weights[f"conv{layer}.bias"] - mean) * factor)
        value = b.node("Conv", [value, weight, bias], f"bn{layer}", pads=[1] * 4)
        value = b.node("Elu", [value], f"elu{layer}")
    assert [output.name for output in proto.graph.output] == [value]
    return b.model((CHANNELS, 6, 6), [value])


def _diff(first: ir.Model, second: ir.Model, folder: Path) -> ModelDiff:
    for model, name in ((first, "a"), (second, "b")):
        save_model(model, folder / f"{name}.onnx")
    return diff(folder / "a.onnx", folder / "b.onnx")


@pytest.mark.parametrize("layer", [0, 13, 29])
def test_the_tensor_right_behind_the_layer_that_was_changed_is_named(layer: int, tmp_path: Path) -> None:
    found = _diff(_convnet(), _convnet(changed_layer=layer), tmp_path)
    assert found.parting is not None
    assert found.parting.tensor == f"conv{layer}_out"
    assert (found.parting.first_node, found.parting.second_node) == (f"Conv conv{layer}",) * 2


def test_the_worst_channel_and_its_values_in_both_are_shown(tmp_path: Path) -> None:
    found = _diff(_convnet(), _convnet(changed_layer=7), tmp_path)
    assert found.parting is not None
    assert found.parting.worst is not None
    worst = found.parting.worst
    assert worst.channel == 3
    assert worst.second_value - worst.first_value == pytest.approx(CHANGE, rel=1e-2)


def test_a_right_fold_of_thirty_layers_answers_alike_everywhere(tmp_path: Path) -> None:
    found = _diff(_convnet(), _fold_by_hand(_convnet()), tmp_path)
    assert found.parting is None
    assert found.outputs_agree
    assert (found.num_in_both, found.num_only_in_first, found.num_only_in_second) == (2 * DEPTH, DEPTH, 0)
    assert found.largest is not None
    assert 0 < found.largest.in_noise_floors < NUM_FLOORS


def test_a_fault_in_a_fold_is_named_by_the_tensor_that_both_models_have(tmp_path: Path) -> None:
    found = _diff(_convnet(), _fold_by_hand(_convnet(changed_layer=7)), tmp_path)
    assert found.parting is not None
    assert found.parting.tensor == "bn7_out"
    assert (found.parting.first_node, found.parting.second_node) == ("BatchNormalization bn7", "Conv bn7")


def test_the_size_of_the_slices_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _diff(_convnet(), _convnet(changed_layer=7), tmp_path)
    monkeypatch.setattr(diff_module, "SLICE", 1)
    by_one = _diff(_convnet(), _convnet(changed_layer=7), tmp_path)
    assert whole.parting is not None
    assert by_one.parting is not None
    assert whole.parting.tensor == by_one.parting.tensor


def test_weights_beside_a_model_are_found(tmp_path: Path) -> None:
    ir.save(_convnet(), tmp_path / "a.onnx", external_data="a.data")
    ir.save(_convnet(), tmp_path / "b.onnx", external_data="b.data")
    assert diff(tmp_path / "a.onnx", tmp_path / "b.onnx").parting is None


def test_a_name_that_a_tool_has_given_to_another_tensor_is_told_from_a_fault(tmp_path: Path) -> None:
    """Some tools leave the folded convolution its own output's name: the values behind it agree."""
    first = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    y = first.node("Relu", [first.batchnorm(first.gemm("x", 6, 5, "dense"), 5, "bn")], "relu")
    second = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    second.weights = dict(first.weights)
    normal = second.node("Gemm", ["x", "dense.weight"], "other")
    z = second.node("BatchNormalization", [normal, *(f"bn.{w}" for w in ("scale", "offset", "mean", "var"))], "dense")
    z = second.node("Relu", [z], "relu")
    found = _diff(first.model((6,), [y]), second.model((6,), [z]), tmp_path)
    assert found.parting is not None
    assert found.parting.tensor == "dense_out"
    assert found.outputs_agree


def test_models_with_other_inputs_are_refused_in_one_sentence(tmp_path: Path) -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    with pytest.raises(FoldInvalid, match="same inputs") as caught:
        _diff(_convnet(), b.model((6,), [b.gemm("x", 6, 5, "dense")]), tmp_path)
    assert "\n" not in str(caught.value)


def test_models_without_a_common_name_are_refused(tmp_path: Path) -> None:
    models = []
    for name in ("one", "other"):
        b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
        models.append(b.model((6,), [b.gemm("x", 6, 5, name)]))
    with pytest.raises(FoldInvalid, match="no tensor of the same name"):
        _diff(models[0], models[1], tmp_path)


def test_a_random_model_is_refused(tmp_path: Path) -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    model = b.model((6,), [b.node("RandomNormalLike", ["x"], "noise")])
    with pytest.raises(FoldInvalid, match="random"):
        _diff(model, model, tmp_path)


def test_a_person_sees_the_layer_and_the_numbers(tmp_path: Path) -> None:
    save_model(_convnet(), tmp_path / "a.onnx")
    save_model(_convnet(changed_layer=7), tmp_path / "b.onnx")
    console = Console(width=100, record=True)
    assert run_diff(tmp_path / "a.onnx", tmp_path / "b.onnx", console)
    text = console.export_text()
    assert re.search(r"They part at conv7_out, by \d\.\de-\d+ = [\d.e+]+ noise floors", text)
    assert "channel 3" in text
    assert "Conv conv7" in text


@pytest.mark.parametrize(("second", "code"), [("same", 0), ("changed", 1), ("broken", 1), ("absent", 1)])
def test_the_command_ends_like_diff(second: str, code: int, tmp_path: Path) -> None:
    save_model(_convnet(), tmp_path / "first.onnx")
    save_model(_convnet(), tmp_path / "same.onnx")
    save_model(_convnet(changed_layer=7), tmp_path / "changed.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    paths = [str(tmp_path / f"{name}.onnx") for name in ("first", second)]
    answer = subprocess.run(
        [sys.executable, "-m", "model_export", "diff", *paths], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert answer.returncode == code
    assert "Traceback" not in answer.stderr
    assert (answer.stderr.count("\n") == 1) == (second in {"broken", "absent"})
