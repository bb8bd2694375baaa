"""int8: what is quantised and how, and the scaling in front of the first layer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_export.errors import PrecisionUnavailable
from model_export.precision import draw_calibration, lower
from model_export.precision.calibration import MAX_BYTES, NUM_CALIBRATION
from model_export.precision.integers import quantise
from model_export.precision.scaling import standardise
from tests.model_export.fold.graphs import GraphBuilder, run

# The weights are changed in float64 and rounded to float32 once, as are shift and scale: a few units in the last place
# of the largest product, which for sizes from 1e-2 to 1e2 cancel to something smaller.
ROUNDING = 1e-4
ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "players" / "1" / "model.onnx"


def _instances(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    """Channels of sizes from 1e-2 to 1e2, around means as large; the last one is constant."""
    rng = np.random.default_rng(seed)
    channels = [-1, *[1] * (len(shape) - 2)]
    sizes, means = 10.0 ** rng.uniform(-2, 2, size=(2, shape[1]))
    sizes[-1] = 0.0
    values: NDArray[np.float64] = rng.normal(size=shape) * sizes.reshape(channels) + means.reshape(channels)
    return values.astype(np.float32)


def _layer(op: str, seed: int, *, bias: bool, transposed: bool) -> tuple[ir.Model, tuple[int, ...]]:
    b = GraphBuilder(np.random.default_rng(seed), dtype=np.float32)
    if op == "Conv":
        extra = [b.weight("layer.bias", 4)] if bias else []
        first = b.node("Conv", ["x", b.weight("layer.weight", 4, 3, 3, 3), *extra], "layer", pads=[1, 1, 1, 1])
        shape: tuple[int, ...] = (3, 5, 5)
    elif op == "Gemm":
        extra = [b.weight("layer.bias", 4)] if bias else []
        weight = b.weight("layer.weight", *((4, 6) if transposed else (6, 4)))
        first = b.node("Gemm", ["x", weight, *extra], "layer", transB=int(transposed))
        shape = (6,)
    else:
        first, shape = b.node("MatMul", ["x", b.weight("layer.weight", 6, 4)], "layer"), (6,)
    return b.model(shape, [b.node("Relu", [first], "relu")]), shape


@settings(max_examples=40, deadline=None)
@given(
    op=st.sampled_from(["Gemm", "MatMul", "Conv"]), seed=st.integers(0, 2**16), bias=st.booleans(), other=st.booleans()
)
def test_scaling_the_input_changes_no_answer(op: str, seed: int, bias: bool, other: bool) -> None:
    model, shape = _layer(op, seed, bias=bias, transposed=other)
    scaled, name = standardise(model, _instances(30, *shape, seed=seed))
    fresh = _instances(7, *shape, seed=seed)
    size = max(1.0, float(np.abs(run(model, np.abs(fresh))[0]).max()), float(np.abs(fresh).max()))
    assert name == "layer"
    assert np.abs(run(scaled, fresh)[0] - run(model, fresh)[0]).max() <= ROUNDING * size


def test_behind_the_scaling_values_and_weights_share_what_was_too_large() -> None:
    """Each channel's largest value is its largest weight: that is what s = √(w/r) means."""
    model, _ = _layer("Gemm", 0, bias=True, transposed=False)
    instances = _instances(200, 6)[:, :-1]
    instances = np.concatenate([instances, _instances(200, 6, seed=2)[:, :1]], axis=1)
    scaled, _ = standardise(model, instances)
    constants = {
        name: value.const_value.numpy() for name, value in scaled.graph.initializers.items() if value.const_value
    }
    values = (instances - constants["layer.shift"]) * constants["layer.scale"]
    largest = np.abs(constants["layer.weight"]).max(axis=1)
    assert np.abs(values).max(axis=0) == pytest.approx(largest, rel=1e-3)


def test_a_layer_that_does_not_read_the_instance_is_not_scaled() -> None:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    model = b.model((6,), [b.gemm(b.node("Tanh", ["x"], "tanh"), 6, 4, "layer")])
    assert standardise(model, _instances(10, 6)) == (model, "")


def _two_layers() -> ir.Model:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    first = b.node("Gemm", ["x", b.weight("first.weight", 6, 8), b.weight("first.bias", 8)], "first")
    second = b.node("Gemm", [b.node("Elu", [first], "elu1"), b.weight("second.weight", 8, 7)], "second")
    return b.model((6,), [b.gemm(b.node("Elu", [second], "elu2"), 7, 3, "third")])


def test_each_output_channel_has_a_scale_of_its_own_and_weights_have_seven_bits() -> None:
    lowered = lower(_two_layers(), "int8", _instances(50, 6)).model
    constants = {name: value.const_value for name, value in lowered.graph.initializers.items() if value.const_value}
    for layer, outputs in (("first", 8), ("second", 7)):
        weight = constants[f"{layer}.weight_quantized"]
        assert weight.dtype == ir.DataType.INT8
        assert np.abs(weight.numpy().astype(int)).max(axis=0).tolist() == [64] * outputs
        assert constants[f"{layer}.weight_scale"].shape == (outputs,)
        assert len(np.unique(constants[f"{layer}.weight_scale"].numpy())) == outputs
        assert not constants[f"{layer}.weight_zero_point"].numpy().any()
    assert constants["first.bias_quantized"].dtype == ir.DataType.INT32
    assert constants["third.weight"].dtype == ir.DataType.FLOAT


def test_activations_are_eight_bits_over_the_range_that_was_seen() -> None:
    """The second layer's input is Elu's output: from −1 at the least."""
    instances = _instances(300, 6)
    lowered = lower(_two_layers(), "int8", instances).model
    reads = next(node for node in lowered.graph if node.name == "second").inputs[0]
    assert reads is not None
    quantised = reads.producer().inputs[0].producer()  # type: ignore[union-attr]
    scale, zero = (value.const_value.numpy().item() for value in quantised.inputs[1:3])  # type: ignore[union-attr]
    seen = run(_with_output(_two_layers(), "elu1_out"), instances)[-1]
    assert quantised.inputs[2].dtype == ir.DataType.UINT8  # type: ignore[union-attr]
    assert scale * (0 - zero) == pytest.approx(seen.min(), abs=scale)
    assert scale * (255 - zero) == pytest.approx(seen.max(), abs=scale)


def _with_output(model: ir.Model, name: str) -> ir.Model:
    value = next(value for node in model.graph for value in node.outputs if value.name == name)
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", 8])
    model.graph.outputs.append(value)
    return model


def test_a_quantised_model_is_valid_and_takes_and_gives_float32() -> None:
    proto = ir.to_proto(lower(_two_layers(), "int8", _instances(50, 6)).model)
    onnx.checker.check_model(proto, full_check=True)
    ends = [*proto.graph.input, *proto.graph.output]
    assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}


def test_the_quantiser_leaves_the_import_path_alone_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = list(sys.path)
    quantise(_two_layers(), _instances(20, 6), frozenset())
    assert sys.path == before
    assert capfd.readouterr() == ("", "")


def test_the_quantiser_reports_to_nobody(tmp_path: Path) -> None:
    """With telemetry on ONNX Runtime writes a device id below the home directory as soon as a session opens."""
    code = (
        "from model_export.precision.integers import _quantiser; _quantiser(); import onnxruntime; "
        f"onnxruntime.InferenceSession({str(GOLDEN)!r})"
    )
    hidden = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=environment | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "matplotlib" not in str(path)] == []


def test_a_model_that_can_not_be_quantised_is_refused_in_one_sentence() -> None:
    with pytest.raises(PrecisionUnavailable, match="ONNX Runtime can not quantise this model"):
        quantise(_two_layers(), _instances(20, 5), frozenset())


def test_the_same_instances_are_drawn_each_time_and_none_twice() -> None:
    training = np.arange(20_000, dtype=np.float32)[:, None]
    drawn = draw_calibration(training, (1,))
    assert len(np.unique(drawn)) == len(drawn) == NUM_CALIBRATION
    assert np.array_equal(drawn, draw_calibration(training, (1,)))


def test_of_few_instances_all_are_taken() -> None:
    training = _instances(30, 6)
    assert np.array_equal(draw_calibration(training, (6,)), training)


def test_of_large_instances_fewer_are_drawn() -> None:
    """A view of one number stands for a gigabyte that need not be there."""
    side = 1024
    training = np.broadcast_to(np.float32(0.5), (100, 1, side, side))
    assert draw_calibration(training, (1, side, side)).nbytes <= MAX_BYTES


class _Stream:
    """Batches of eight, as a loader of one's own gives them."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.arange(32.0).reshape(4, 8, 1))


def test_a_stream_is_gone_over_in_order() -> None:
    assert draw_calibration(_Stream(), (1,)).ravel().tolist() == list(range(32))
