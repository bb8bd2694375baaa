"""Fault 21: a GPU that is not there, has no memory, or is lost. Never silent; what only a new process mends ends it.

The failures are injected where ONNX Runtime runs, with its own words; a GPU is not needed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults.odd_servers import Oddity, OddServer, odd_server
from tests.faults.standing import own_body, scores_of
from tests.service.exact_models import exact_instances, exact_model, expected_bits, write_exact_bundle
from tests.service.running_server import run_and_fail, running_server

MODEL = exact_model()
INSTANCE = exact_instances(MODEL, 1)[0]
BODY = own_body(INSTANCE)
OUT_OF_MEMORY = "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc(&p, size);"
ILLEGAL_ACCESS = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; expr=cudaStreamSynchronize(s);"
PATHS = ("/predict", "/v1/models/digits:predict", "/invocations")
END_SECONDS = 30


@contextmanager
def failing(tmp_path: Path, *arguments: str) -> Iterator[tuple[OddServer, Path]]:
    """Serve on a device that fails as long as the file that is given is there."""
    failure = tmp_path / "failure.txt"
    write_exact_bundle(tmp_path / "models", MODEL)
    oddity = Oddity(module="tests.faults.failing_device", environment={"FAILURE": str(failure)})
    with odd_server(oddity, "--models", str(tmp_path / "models"), *arguments) as server:
        yield server, failure


def check_right(url: str) -> None:
    answer = httpx.post(f"{url}/predict", content=BODY, timeout=30)
    assert answer.status_code == 200, answer.text
    assert scores_of(answer.json()) == expected_bits(MODEL, INSTANCE[None])


def test_fault_21_a_gpu_that_is_missing_is_refused_where_one_was_asked_for(tmp_path: Path) -> None:
    write_exact_bundle(tmp_path, MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        refused = run_and_fail("--models", str(tmp_path), "--device", "cuda")
    assert (refused.returncode, refused.stdout) == (1, "")
    [line] = refused.stderr.splitlines()
    assert "no GPU can be used" in line


def test_fault_21_where_any_device_will_do_the_cpu_is_taken_and_that_is_said_everywhere(tmp_path: Path) -> None:
    write_exact_bundle(tmp_path, MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        with running_server("--models", str(tmp_path), "--device", "auto") as server, server.client() as client:
            assert "serving on the CPU" in server.err[0]
            assert client.get("/models/digits").json()["device"]["provider"] == "CPUExecutionProvider"
            assert 'device="auto"' in client.get("/metrics").text
            check_right(server.url)


def test_fault_21_a_run_that_finds_no_memory_is_507_and_the_next_one_is_right(tmp_path: Path) -> None:
    with failing(tmp_path) as (server, failure):
        for _ in range(3):
            failure.write_text(OUT_OF_MEMORY)
            answer = httpx.post(f"{server.url}/predict", content=BODY, timeout=30)
            assert answer.status_code == 507, answer.text
            assert answer.json()["code"] == "device_out_of_memory"
            failure.unlink()
            check_right(server.url)
        assert httpx.get(f"{server.url}/health/ready").status_code == 200


def test_fault_21_another_failure_is_a_failed_prediction_without_a_stack_trace(tmp_path: Path) -> None:
    with failing(tmp_path) as (server, failure):
        failure.write_text("[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned")
        for path in PATHS:
            body = BODY if path == "/predict" else BODY.replace(b'"instance": ', b'"instances": [').replace(b"}", b"]}")
            answer = httpx.post(server.url + path, content=body, timeout=30)
            assert answer.status_code == 500, answer.text
            assert "Traceback" not in answer.text
        failure.unlink()
        check_right(server.url)


def test_fault_21_a_lost_gpu_ends_the_process_unready_and_with_a_failure(tmp_path: Path) -> None:
    with failing(tmp_path, "--drain-seconds", "1") as (server, failure):
        failure.write_text(ILLEGAL_ACCESS)
        answer = httpx.post(f"{server.url}/predict", content=BODY, timeout=30)
        assert answer.status_code >= 500
        assert httpx.get(f"{server.url}/health/ready", timeout=10).status_code == 503
        assert server.process.wait(timeout=END_SECONDS) != 0
        assert "illegal memory access" in server.complaints()
        assert "Traceback" not in server.complaints()


def test_fault_21_a_worker_that_lost_the_gpu_is_replaced(tmp_path: Path) -> None:
    with failing(tmp_path, "--workers", "2") as (server, failure):
        failure.write_text(ILLEGAL_ACCESS)
        assert httpx.post(f"{server.url}/predict", content=BODY, timeout=30).status_code >= 500
        failure.unlink()
        until = time.perf_counter() + END_SECONDS
        while "starting another one" not in server.complaints():
            assert time.perf_counter() < until
            time.sleep(0.1)
        assert server.process.poll() is None
        for _ in range(20):
            check_right(server.url)
