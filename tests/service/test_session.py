"""Opening models: what can be served is, on the device that is reported; what can not is refused in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.bundle import Feature, TensorSpec
from service.device import why_no_cuda
from service.errors import DeviceUnavailable, ModelUnloadable, SignatureMismatch
from service.session import Session, open_session
from tests.service.tiny_models import TOLERANCE, tiny_model, to_model


def save_identity(path: Path, *, input_type: int, input_shape: list[Any], output_type: int | None = None) -> Path:
    """Save a model that casts its input to its output."""
    node = helper.make_node("Cast", ["x"], ["y"], to=output_type or input_type)
    instance = helper.make_tensor_value_info("x", input_type, input_shape)
    scores = helper.make_tensor_value_info("y", output_type or input_type, input_shape)
    onnx.save(to_model([node], [instance], [scores], []), path)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_a_bare_model_spells_its_own_signature(tmp_path: Path, dtype: str) -> None:
    model = tiny_model((1, 2, 3), dtype=dtype)
    assert open_session(model.save(tmp_path / "m.onnx"), device="cpu").signature == model.signature


def test_the_fixed_buffers_are_read_and_written_by_every_run(tmp_path: Path) -> None:
    model = tiny_model()
    session = open_session(model.save(tmp_path / "m.onnx"), device="cpu")
    for instance in np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32):
        session.input[0] = instance
        session.run()
        np.testing.assert_allclose(session.outputs[0][0], model.oracle(instance), atol=TOLERANCE, rtol=0)


def test_the_placement_counts_every_node_on_the_cpu(tmp_path: Path) -> None:
    placement = open_session(tiny_model().save(tmp_path / "m.onnx"), device="cpu").placement
    assert (placement.requested, placement.provider, placement.reason) == ("cpu", "CPUExecutionProvider", "")
    assert set(placement.nodes) <= {"CPUExecutionProvider"}


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x08\x07"])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelUnloadable, match=r"m\.onnx") as caught:
        open_session(path, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"input_type": TensorProto.FLOAT16, "input_shape": ["n", 4]}, "tensor of float32, float64, int64"),
        ({"input_type": TensorProto.STRING, "input_shape": ["n", 4]}, "tensor of float32, float64, int64"),
        ({"input_type": TensorProto.FLOAT, "input_shape": [8, 4]}, "a first axis for the batch"),
        ({"input_type": TensorProto.FLOAT, "input_shape": ["n", "m"]}, "only the batch axis to be free"),
        ({"input_type": TensorProto.FLOAT, "input_shape": ["n"]}, "at least one axis more"),
        ({"input_type": TensorProto.FLOAT, "input_shape": ["n", 2, 2]}, "expected the scores"),
        ({"input_type": TensorProto.INT64, "input_shape": ["n", 4]}, "expected the scores"),
    ],
)
def test_a_form_that_can_not_be_served_is_refused_with_what_would_do(
    tmp_path: Path, form: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelUnloadable, match=said):
        open_session(save_identity(tmp_path / "m.onnx", **form), device="cpu")


def test_a_model_with_two_inputs_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["a", "b"], ["y"])
    a, b, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "aby")
    onnx.save(to_model([node], [a, b], [y], []), tmp_path / "m.onnx")
    with pytest.raises(ModelUnloadable, match=r"one input, it has 2 \('a', 'b'\)"):
        open_session(tmp_path / "m.onnx", device="cpu")


def test_another_signature_than_the_models_is_refused(tmp_path: Path) -> None:
    signature = tiny_model().signature
    path = tiny_model().save(tmp_path / "m.onnx")
    wrong = [
        replace(signature, input=TensorSpec(name="x", dtype="float32", shape=(5,))),
        replace(signature, labels=("only one",)),
        replace(signature, features=(Feature(name="a"),)),
        replace(signature, features=tuple(Feature(name="twice") for _ in range(4))),
    ]
    for other in wrong:
        with pytest.raises(SignatureMismatch):
            open_session(path, signature=other, device="cpu")


def test_without_a_gpu_cuda_is_refused_and_auto_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tiny_model().save(tmp_path / "m.onnx")
    if not why_no_cuda():
        pytest.skip("there is a GPU driver here")
    with pytest.raises(DeviceUnavailable, match="no GPU can be used: "):
        open_session(path, device="cuda")
    assert open_session(path, device="auto").placement.reason.startswith("no GPU can be used: ")
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def on_gpu(tmp_path: Path) -> Session:
    """Open a session that really runs on a GPU, or skip."""
    try:
        return open_session(tiny_model((64,), num_labels=10).save(tmp_path / "gpu.onnx"), device="cuda")
    except DeviceUnavailable as err:
        pytest.skip(str(err))


@pytest.mark.gpu
def test_on_the_gpu_every_node_is_on_the_gpu(on_gpu: Session) -> None:
    assert on_gpu.placement.provider == "CUDAExecutionProvider"
    assert set(on_gpu.placement.nodes) == {"CUDAExecutionProvider"}


@pytest.mark.gpu
def test_the_gpu_answers_what_the_oracle_answers(on_gpu: Session) -> None:
    model = tiny_model((64,), num_labels=10)
    for instance in np.random.default_rng(5).normal(size=(20, 64)).astype(np.float32):
        on_gpu.input[0] = instance
        on_gpu.run()
        # 64 products a sum, without TF32: rounding stays near float32's own.
        np.testing.assert_allclose(on_gpu.outputs[0][0], model.oracle(instance), atol=10 * TOLERANCE, rtol=0)
