"""The memory of a model on the GPU: on a fake CUDA runtime whose device is the host, and on a real one where it is."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.batches import Batches
from service.batching import SIZES_ON_A_GPU
from service.buffers import plan_bound_run
from service.cuda import DeviceBuffers, Staging
from service.cudart import CudaRuntime, find_cuda_runtime
from service.device import AS_USUAL, GpuOptions
from service.errors import DeviceUnavailable, PredictionFailed
from service.placement import Placement
from service.providers import cuda_options, gpu_session_options, open_on_cpu
from service.session import Session, open_session
from tests.service.fake_cuda import STREAM, FakeLibrary
from tests.service.tiny_models import TOLERANCE, Array, tiny_model

SIZES = (1, *SIZES_ON_A_GPU)
MODEL = tiny_model((64,), num_labels=10)
PLACEMENT = Placement(requested="cuda", provider="none", reason="", nodes={})


@pytest.fixture
def library() -> FakeLibrary:
    return FakeLibrary()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return MODEL.save(tmp_path / "m.onnx")


@pytest.fixture
def on_host(path: Path) -> Session:
    return open_session(path, device="cpu")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Collect the run options that buffers on a device are bound with."""
    asked: list[dict[str, str]] = []

    def plan(session: Any, binding: Any, entries: dict[str, str]) -> Any:
        asked.append(entries)
        return plan_bound_run(session, binding, entries)

    monkeypatch.setattr("service.cuda.plan_bound_run", plan)
    return asked


def as_if_on_gpu(path: Path, library: FakeLibrary | None, *, graphs: bool = True) -> Session:
    """Open a session on the CPU, but with the buffers of a GPU, whose memory is the host's."""
    runtime = None if library is None else CudaRuntime(library)
    staging = None if runtime is None else Staging(runtime, runtime.create_stream())
    session, signature = open_on_cpu(path), MODEL.signature
    buffers = DeviceBuffers(session, signature, graphs=graphs, staging=staging, device="cpu")
    return Session(session, signature, PLACEMENT, buffers)


@pytest.mark.parametrize("staged", [True, False])
def test_each_size_copies_its_rows_there_and_back(
    path: Path, on_host: Session, library: FakeLibrary, *, staged: bool
) -> None:
    session = as_if_on_gpu(path, library if staged else None)
    expected, rng = on_host.bind(SIZES), np.random.default_rng(1)
    for size, batch in session.bind(SIZES).items():
        batch.input[:] = expected[size].input[:] = rng.normal(size=(size, 64))
        batch.outputs[0][:] = np.nan
        batch.run()
        expected[size].run()
        assert batch.outputs[0].tobytes() == expected[size].outputs[0].tobytes()


def test_a_run_is_two_copies_and_one_wait(path: Path, library: FakeLibrary) -> None:
    session = as_if_on_gpu(path, library)
    library.calls.clear()
    session.run()
    assert library.calls == ["cudaMemcpyAsync", "cudaMemcpyAsync", "cudaStreamSynchronize"]


def test_each_size_has_one_graph_of_its_own(path: Path, asked: list[dict[str, str]]) -> None:
    """However often it is bound: a size that is compared at start is the very one that serves."""
    session = as_if_on_gpu(path, FakeLibrary())
    session.bind(SIZES)
    session.bind(SIZES)
    assert [entries["gpu_graph_id"] for entries in asked] == [str(number + 1) for number in range(len(SIZES))]
    assert {entries["disable_synchronize_execution_providers"] for entries in asked} == {"1"}


@pytest.mark.parametrize(("graphs", "library"), [(False, FakeLibrary()), (True, None)])
def test_without_graphs_none_is_asked_for_and_without_staging_each_run_waits(
    path: Path, asked: list[dict[str, str]], library: FakeLibrary | None, *, graphs: bool
) -> None:
    as_if_on_gpu(path, library, graphs=graphs)
    assert asked[0]["gpu_graph_id"] == ("1" if graphs else "-1")
    assert ("disable_synchronize_execution_providers" in asked[0]) == (library is not None)


def test_memory_is_page_locked_as_long_as_a_view_of_it_lives(library: FakeLibrary) -> None:
    runtime = CudaRuntime(library)
    array = runtime.page_locked((3, 5), "float32")
    view = array[:2]
    assert array.shape == (3, 5)
    assert array.dtype == np.float32
    assert not array.any()
    assert len(library.locked) == 1
    del array
    gc.collect()
    assert len(library.locked) == 1
    del view
    gc.collect()
    assert library.locked == set()


def test_two_arrays_never_share_a_page(library: FakeLibrary) -> None:
    runtime = CudaRuntime(library)
    arrays = [runtime.page_locked((7,), "float64") for _ in range(20)]
    pages = {array.ctypes.data // 4096 for array in arrays}
    assert len(pages) == len(arrays)
    assert {(array.ctypes.data + array.nbytes - 1) // 4096 for array in arrays} == pages


@pytest.mark.parametrize("failing", ["cudaMemcpyAsync", "cudaStreamSynchronize"])
def test_a_failure_of_the_gpu_fails_the_prediction(path: Path, library: FakeLibrary, failing: str) -> None:
    session = as_if_on_gpu(path, library)
    library.failing = failing
    with pytest.raises(PredictionFailed, match=rf"{failing} failed: error 700 of the fake \(CUDA error 700\)"):
        session.run()


def test_a_stream_that_can_not_be_had_is_a_device_that_can_not_be_used(library: FakeLibrary) -> None:
    library.failing = "cudaStreamCreateWithFlags"
    with pytest.raises(DeviceUnavailable, match="cudaStreamCreateWithFlags failed"):
        CudaRuntime(library).create_stream()


def test_a_library_that_lacks_a_call_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cudart.ctypes.CDLL", lambda _: object())
    assert find_cuda_runtime() is None


def test_preparing_makes_three_runs_of_each_size_in_the_thread_that_asks(path: Path, library: FakeLibrary) -> None:
    batches = Batches(as_if_on_gpu(path, library), SIZES)
    library.calls.clear()
    thread = threading.Thread(target=batches.prepare)
    thread.start()
    thread.join()
    assert library.calls.count("cudaStreamSynchronize") == 3 * len(SIZES)


def test_on_the_cpu_there_is_nothing_to_prepare(on_host: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Batches(on_host, (1, 4))
    monkeypatch.setattr("service.session.Batch.run", lambda _: pytest.fail("a run"))
    batches.prepare()
    assert batches.num_bytes_since_prepared() is None


def test_bytes_that_are_taken_after_preparing_are_counted(path: Path, library: FakeLibrary) -> None:
    batches = Batches(as_if_on_gpu(path, library), SIZES)
    assert batches.num_bytes_since_prepared() is None
    batches.prepare()
    assert batches.num_bytes_since_prepared() == 0
    library.num_bytes_used += 512
    assert batches.num_bytes_since_prepared() == 512


def test_the_options_of_a_gpu_are_exact_unless_tf32_is_asked_for() -> None:
    options = cuda_options(AS_USUAL, graphs=True, stream=STREAM)
    assert (options["use_tf32"], options["enable_cuda_graph"], options["user_compute_stream"]) == ("0", "1", "77")
    assert cuda_options(GpuOptions(tf32=True), graphs=False, stream=None)["use_tf32"] == "1"
    assert not gpu_session_options().enable_mem_pattern
    assert gpu_session_options().get_session_config_entry("session.disable_cpu_ep_fallback") == "1"


# --- on a real GPU ---------------------------------------------------------------------------------------------------


def open_on_gpu(tmp_path: Path, **options: Any) -> Session:
    try:
        return open_session(MODEL.save(tmp_path / "m.onnx"), device="cuda", gpu=replace(AS_USUAL, **options))
    except DeviceUnavailable as err:
        pytest.skip(str(err))


def answers(session: Session, instances: Array) -> Array:
    batches = Batches(session, SIZES)
    batches.prepare()
    found = [batches.compute([one.tobytes() for one in instances[:number]])[0].copy() for number in range(1, 33)]
    return np.concatenate(found)


@pytest.fixture
def instances() -> Array:
    return np.random.default_rng(5).normal(size=(32, 64)).astype(np.float32)


@pytest.mark.gpu
def test_graphs_are_captured(tmp_path: Path) -> None:
    assert open_on_gpu(tmp_path).placement.graphs == "captured"


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"graphs": False}, {"staged": False}, {"graphs": False, "staged": False}])
def test_the_gpu_answers_what_the_oracle_answers_in_every_size(
    tmp_path: Path, instances: Array, options: dict[str, bool]
) -> None:
    found = answers(open_on_gpu(tmp_path, **options), instances)
    expected = np.concatenate([[MODEL.oracle(one) for one in instances[:number]] for number in range(1, 33)])
    # 64 products a sum, without TF32: rounding stays near float32's own.
    np.testing.assert_allclose(found, expected, atol=10 * TOLERANCE, rtol=0)


@pytest.mark.gpu
def test_a_graph_answers_as_the_kernels_one_by_one_do(tmp_path: Path, instances: Array) -> None:
    with_graphs, without = (answers(open_on_gpu(tmp_path, graphs=graphs), instances) for graphs in (True, False))
    assert with_graphs.tobytes() == without.tobytes()


@pytest.mark.gpu
def test_a_thread_of_its_own_answers_as_the_one_that_loaded(tmp_path: Path, instances: Array) -> None:
    session, found = open_on_gpu(tmp_path), []
    here = answers(session, instances)
    thread = threading.Thread(target=lambda: found.append(answers(session, instances)))
    thread.start()
    thread.join()
    assert found[0].tobytes() == here.tobytes()


@pytest.mark.gpu
def test_nothing_is_allocated_after_preparing(tmp_path: Path, instances: Array) -> None:
    batches = Batches(open_on_gpu(tmp_path), SIZES)
    batches.prepare()
    for number in (1, 2, 3, 7, 16, 32, 31, 1) * 20:
        batches.compute([one.tobytes() for one in instances[:number]])
    assert batches.num_bytes_since_prepared() == 0
