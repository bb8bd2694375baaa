"""The five ways in which ONNX Runtime goes from the GPU to the CPU without a word: each is caught, and said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from service.buffers import HostBuffers, plan_bound_run
from service.device import AS_USUAL, GpuOptions, why_no_cuda, why_no_tensorrt
from service.errors import DeviceUnavailable, ModelUnloadable, PredictionFailed
from service.providers import check_unmixed, count_nodes, open_on_cpu, open_on_gpu, tensorrt_options
from service.runtime import ort, serving_options
from service.session import Batch, open_session
from service.settings import read_settings
from tests.service.tiny_models import tiny_model, to_model

without_a_gpu = pytest.mark.skipif(not why_no_cuda(), reason="there is a GPU driver here")
MODEL = tiny_model()
Run = Callable[[], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return MODEL.save(tmp_path / "m.onnx")


@pytest.fixture
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all seem well beforehand, so that only what becomes of the session can tell."""
    monkeypatch.setattr("service.providers.why_no_cuda", lambda: "")
    monkeypatch.setattr("service.providers.why_no_tensorrt", lambda: "")
    monkeypatch.setattr("service.session.find_cuda_runtime", lambda: None)


# --- 1: the provider's library does not load -------------------------------------------------------------------------


@without_a_gpu
def test_onnx_runtime_itself_takes_the_cpu_for_a_gpu_that_it_can_not_use(path: Path) -> None:
    """What the tests around this one are about; if it ever fails, ONNX Runtime has got better."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this is the CPU build")
    ort.set_default_logger_severity(4)
    session = ort.InferenceSession(str(path), serving_options(), providers=["CUDAExecutionProvider"])
    assert session.get_providers() == ["CPUExecutionProvider"]


@without_a_gpu
@pytest.mark.usefixtures("nothing_known")
def test_a_library_that_is_missing_is_named_by_the_session_that_did_not_come_up(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this is the CPU build")
    with pytest.raises(
        DeviceUnavailable, match=r"no GPU can be used for .*(a CUDA library is missing|did not bring up)"
    ):
        open_session(path, device="cuda")
    assert open_session(path, device="auto").placement.provider == "CPUExecutionProvider"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("nothing_known")
def test_a_session_that_is_on_the_cpu_is_refused_even_if_its_options_allow_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.providers._inference_session", lambda *_: open_with(path, ["CPUExecutionProvider"]))
    with pytest.raises(DeviceUnavailable, match="no GPU can be used: "):
        open_on_gpu(path, "cuda", AS_USUAL, graphs=False, stream=None)


def open_with(path: Path, providers: list[Any]) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), serving_options(), providers=providers)


# --- 2: the wrong wheel ----------------------------------------------------------------------------------------------


def test_the_cpu_build_is_named_and_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # ONNX Runtime warns, in Python; we do not come so far
        with pytest.raises(DeviceUnavailable, match=r"CPU build: install foldserve\[gpu\] instead"):
            open_session(path, device="cuda")
        assert "CPU build" in open_session(path, device="auto").placement.reason


# --- 3: the constructor fails ----------------------------------------------------------------------------------------


@pytest.fixture
def failing_constructor(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let the real constructor fail at its heart for every provider but the CPU's, as a full GPU would."""
    tried: list[Any] = []
    create = ort.InferenceSession._create_inference_session

    def fail(self: Any, providers: Any, *others: Any) -> None:
        tried.append(providers)
        if providers != ["CPUExecutionProvider"]:
            raise RuntimeError("out of memory")
        create(self, providers, *others)
        self._fallback_providers = ["CPUExecutionProvider"]

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fail)
    monkeypatch.setattr(ort.InferenceSession, "_fallback_providers", ["CPUExecutionProvider"], raising=False)
    return tried


def test_onnx_runtime_itself_tries_the_cpu_when_its_constructor_fails(
    path: Path, failing_constructor: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert open_with(path, ["CUDAExecutionProvider"]).get_providers() == ["CPUExecutionProvider"]
    assert len(failing_constructor) == 2
    assert "Falling back" in capfd.readouterr().out


@pytest.mark.usefixtures("nothing_known")
def test_a_constructor_that_fails_is_not_tried_on_the_cpu(
    path: Path, failing_constructor: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeviceUnavailable, match=r"no GPU can be used for .*: out of memory"):
        open_on_gpu(path, "cuda", AS_USUAL, graphs=False, stream=None)
    assert [isinstance(providers[0], tuple) for providers in failing_constructor] == [True, False]  # our own look at it
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("nothing_known")
def test_a_broken_file_is_no_fault_of_the_gpu(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelUnloadable, match=r"m\.onnx"):
        open_session(path, device="cuda")


# --- 4: a run fails --------------------------------------------------------------------------------------------------


def failing(session: ort.InferenceSession) -> ort.InferenceSession:
    """Let every run of the session fail as a provider's does."""
    fail = ort.capi.onnxruntime_pybind11_state.EPFail

    class Inner:
        def run(self, *_: Any) -> NoReturn:
            raise fail("CUDA failure 700: an illegal memory access was encountered")

        run_with_iobinding = run

        def is_webgpu_graph_capture_enabled(self) -> bool:
            return False

    session._sess = Inner()
    return session


def test_onnx_runtime_itself_makes_a_failed_run_again_on_the_cpu(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = failing(open_with(path, ["CPUExecutionProvider"]))
    session.run(None, {"x": np.zeros((1, 4), np.float32)})
    assert "Falling back" in capfd.readouterr().out


def test_a_run_that_fails_is_a_failed_prediction_and_is_not_made_again(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    session = open_on_cpu(path)
    binding = session.io_binding()
    run = plan_bound_run(failing(session), binding, {})
    with pytest.raises(PredictionFailed, match="CUDA failure 700"):
        Batch(run, np.zeros((1, 4)), ()).run()
    with pytest.raises(Exception, match="CUDA failure 700"):  # nor by the way that nobody takes
        session.run(None, {"x": np.zeros((1, 4), np.float32)})
    assert capfd.readouterr() == ("", "")


def test_a_model_that_fails_on_an_instance_says_so(tmp_path: Path) -> None:
    """A real one: there is no row 5 in a table of two."""
    nodes = [helper.make_node("Gather", ["table", "x"], ["rows"]), helper.make_node("Flatten", ["rows"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    table = numpy_helper.from_array(np.eye(2, dtype=np.float32), "table")
    save(to_model(nodes, [x], [y], [table]), tmp_path / "m.onnx")
    session = open_session(tmp_path / "m.onnx", device="cpu")
    session.input[0] = 5
    with pytest.raises(PredictionFailed, match=r"ONNX Runtime failed on this instance: .*out of"):
        session.run()
    session.input[0] = 1
    session.run()
    assert session.outputs[0].tolist() == [[0, 1]]


# --- 5: some nodes on the CPU ----------------------------------------------------------------------------------------


def test_nodes_in_two_places_are_refused_and_counted(path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="mixed, 2 on CPUExecutionProvider, 7 on CUDAExecutionProvider"):
        check_unmixed({"CUDAExecutionProvider": 7, "CPUExecutionProvider": 2}, {"CUDAExecutionProvider"})
    check_unmixed({"CUDAExecutionProvider": 7}, {"CUDAExecutionProvider"})
    counted = count_nodes(open_on_cpu(path))
    assert set(counted) == {"CPUExecutionProvider"}
    with pytest.raises(DeviceUnavailable):
        check_unmixed(counted, {"CUDAExecutionProvider"})


# --- graphs that can not be captured ---------------------------------------------------------------------------------


class CapturingNothing(HostBuffers):
    """The memory of a GPU on which a capture fails: CUDA's error 900, a kernel that waits."""

    def bind(self, instances: Any, outputs: tuple[Any, ...]) -> Run:
        def run(_bound: Any = (instances, outputs)) -> None:
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")

        return run


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize("first", ["opening", "running"])
def test_without_its_graphs_a_model_still_runs_on_the_gpu_and_says_why(
    path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """A GPU that captures nothing, made of the CPU: it refuses at once, or when it captures."""

    def open_model(_: Path, __: str, ___: GpuOptions, *, graphs: bool, stream: int | None) -> ort.InferenceSession:
        if graphs and first == "opening":
            raise DeviceUnavailable("the model has control flow")
        return open_on_cpu(path)

    def buffers(session: ort.InferenceSession, signature: Any, *, graphs: bool, staging: None) -> HostBuffers:
        return (CapturingNothing if graphs else HostBuffers)(session, signature)

    monkeypatch.setattr("service.session.open_on_gpu", open_model)
    monkeypatch.setattr("service.session.DeviceBuffers", buffers)
    placement = open_session(path, device="cuda").placement
    assert placement.graphs.startswith("none: ")
    assert ("control flow" if first == "opening" else "CUDA failure 900") in placement.graphs


@pytest.mark.usefixtures("nothing_known")
def test_a_gpu_on_which_nothing_runs_is_refused_and_auto_serves_on_the_cpu_and_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.session.open_on_gpu", lambda *_, **__: open_on_cpu(path))
    monkeypatch.setattr(
        "service.session.DeviceBuffers", lambda session, signature, **_: CapturingNothing(session, signature)
    )
    with pytest.raises(DeviceUnavailable, match=r"no GPU can be used for .*: .*CUDA failure 900"):
        open_session(path, device="cuda")
    placement = open_session(path, device="auto").placement
    assert (placement.requested, placement.provider) == ("auto", "CPUExecutionProvider")
    assert "CUDA failure 900" in placement.reason


# --- TensorRT --------------------------------------------------------------------------------------------------------


def test_tensorrt_that_is_not_installed_is_refused_with_what_to_install(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if not why_no_tensorrt():
        pytest.skip("TensorRT is here")
    with pytest.raises(
        DeviceUnavailable, match=r"no GPU can be used: .*(pip install 'tensorrt|install foldserve|driver)"
    ):
        open_session(path, device="tensorrt")
    assert capfd.readouterr() == ("", "")


def test_a_build_without_tensorrt_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert why_no_tensorrt().startswith("this ONNX Runtime has no TensorRT in it")


def test_tensorrt_keeps_its_engines_by_the_models_digest_and_computes_in_float32(path: Path, tmp_path: Path) -> None:
    inputs = open_on_cpu(path).get_inputs()
    options = tensorrt_options(GpuOptions(engine_cache=tmp_path / "cache"), inputs, 7, "abc")
    assert (tmp_path / "cache" / "abc").is_dir()
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(tmp_path / "cache" / "abc")
    assert [options[f"trt_{kind}_enable"] for kind in ("fp16", "bf16", "int8")] == ["0", "0", "0"]
    shapes = [options[f"trt_profile_{name}_shapes"] for name in ("min", "opt", "max")]
    assert shapes == ["x:1x4", "x:1x4", "x:32x4"]
    assert options["user_compute_stream"] == "7"


def test_tensorrt_computes_in_less_only_what_was_exported_in_less(path: Path) -> None:
    options = tensorrt_options(GpuOptions(precision="fp16"), open_on_cpu(path).get_inputs(), None, "abc")
    assert [options[f"trt_{kind}_enable"] for kind in ("fp16", "bf16", "int8")] == ["1", "0", "0"]


def test_a_cache_that_can_not_be_written_is_said(path: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(
        DeviceUnavailable, match=r"can not keep its engines in .*; name another place by --engine-cache"
    ):
        tensorrt_options(GpuOptions(engine_cache=tmp_path / "cache"), open_on_cpu(path).get_inputs(), None, "abc")


def test_without_a_cache_tensorrt_writes_nothing(path: Path) -> None:
    options = tensorrt_options(AS_USUAL, open_on_cpu(path).get_inputs(), None, "abc")
    assert not {name for name in options if "cache" in name or "stream" in name}


def test_engines_lie_in_the_users_cache_unless_said_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        read_settings(["--device", "tensorrt"]).gpu_options().engine_cache
        == tmp_path / ".cache" / "foldserve" / "tensorrt"
    )
    assert read_settings(["--engine-cache", "here"]).gpu_options().engine_cache == Path("here")
    assert not read_settings([]).gpu_options().tf32


@pytest.mark.gpu
def test_tensorrt_answers_what_the_oracle_answers(path: Path, tmp_path: Path) -> None:
    try:
        session = open_session(path, device="tensorrt", gpu=GpuOptions(engine_cache=tmp_path / "cache"))
    except DeviceUnavailable as err:
        pytest.skip(str(err))
    assert session.placement.provider == "TensorrtExecutionProvider"
    for instance in np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32):
        session.input[0] = instance
        session.run()
        np.testing.assert_allclose(session.outputs[0][0], MODEL.oracle(instance), atol=1e-4, rtol=0)
