"""A real server process, asked over real sockets."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.openapi.models import OpenAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.predictor import open_predictor
from tests.service.running_server import RunningServer, run_and_fail, running_server
from tests.service.tiny_models import TOLERANCE, TinyModel, tiny_examples, tiny_model, with_wrong_answer
from tests.service.tiny_models import write_tiny_bundle as write

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


def zeros(replaced: str = "0") -> bytes:
    return f'{{"instance":[{",".join([replaced, *["0"] * 63])}]}}'.encode()


@pytest.mark.parametrize("path", ["/predict", "/models/digits/predict"])
def test_an_instance_gets_the_prediction_of_the_model_that_is_named(client: httpx.Client, path: str) -> None:
    response = client.post(path, content=zeros(), headers=JSON)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    scores = answer["prediction"]["scores"]
    assert answer["model"] == {"name": "digits", "version": "1"}
    assert answer["prediction"]["label"] == str(np.argmax(scores))
    assert len(scores) == 10


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instance=arrays.arrays("float32", (64,), elements=st.floats(-10, 10, width=32)))
def test_http_answers_what_onnxruntime_answers_bit_by_bit(
    client: httpx.Client, digits: TinyModel, tmp_path_factory: pytest.TempPathFactory, instance: Any
) -> None:
    response = client.post("/predict", json={"instance": instance.tolist()})
    scores = np.array(response.json()["prediction"]["scores"], np.float32)
    path = tmp_path_factory.getbasetemp() / "oracle.onnx"
    predictor = open_predictor(path if path.exists() else digits.save(path), digits.signature, device="cpu")
    assert scores.tobytes() == predictor.outputs(instance)["scores"].tobytes()
    np.testing.assert_allclose(scores, digits.oracle(instance), rtol=1e-4, atol=10 * TOLERANCE)


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b'{"instance":[1,2,3]}', 422, "instance_invalid", "instance"),
        (zeros("null"), 422, "instance_invalid", "instance[0]"),
        (zeros("true"), 422, "instance_invalid", "instance[0]"),
        (zeros('"1"'), 422, "instance_invalid", "instance[0]"),
        (zeros("NaN"), 422, "instance_invalid", "instance[0]"),
        (zeros("Infinity"), 422, "instance_invalid", "instance[0]"),
        (zeros("1e999"), 422, "instance_invalid", "instance[0]"),
        (zeros("1e39"), 422, "instance_invalid", "instance[0]"),
        (b'{"instance":[' + b",".join([b"3e38"] * 64) + b"]}", 422, "instance_invalid", "instance"),
        (b'{"inputs":[1]}', 422, "instance_invalid", "inputs"),
        (b"{", 400, "body_malformed", None),
        (b"", 400, "body_malformed", None),
        (b"[" * 19_000, 400, "body_malformed", None),
        (b" " * 20_001, 413, "body_too_large", None),
    ],
)
def test_a_bad_body_is_the_clients_mistake(
    client: httpx.Client, body: bytes, status: int, code: str, field: str | None
) -> None:
    response = client.post("/predict", content=body, headers=JSON)
    answer = response.json()
    assert (response.status_code, answer["code"], answer.get("field")) == (status, code, field)
    assert answer["error"]
    assert client.post("/predict", content=zeros(), headers=JSON).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-type": "Application/JSON;charset=UTF-8"}, 200),
        ({"content-type": "application/json; charset=latin-1"}, 415),
        ({"content-type": "text/csv"}, 415),
        ({"content-type": "application/json", "content-encoding": "identity"}, 200),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 200),
        ({"content-type": "application/json", "content-encoding": "br"}, 415),
    ],
)
def test_only_json_in_utf_8_is_read(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    body = gzip.compress(zeros()) if headers.get("content-encoding") == "gzip" else zeros()
    assert client.post("/predict", content=body, headers=headers).status_code == status


def exchange(server: RunningServer, *pieces: bytes) -> bytes:
    """Send raw bytes, and read until the server closes the connection."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(server: RunningServer) -> None:
    answer = exchange(server, b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer


def test_a_body_that_grows_too_large_is_refused_while_it_comes(server: RunningServer) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = exchange(server, head, b"8000\r\n" + b" " * 0x8000 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_early_disturbs_nobody(server: RunningServer, client: httpx.Client) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    assert client.post("/predict", content=zeros()).status_code == 200
    assert "Traceback" not in "".join(server.err)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/predict", 405, "method_not_allowed"),
        ("DELETE", "/models/digits/predict", 405, "method_not_allowed"),
        ("GET", "/nothing", 404, "not_found"),
        ("POST", "/models/other/predict", 404, "model_unknown"),
        ("GET", "/models/other", 404, "model_unknown"),
    ],
)
def test_a_wrong_place_is_answered_in_the_same_form(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert ("allow" in response.headers) == (status == 405)


def test_the_example_can_be_posted_as_it_is(client: httpx.Client) -> None:
    example = client.get("/model").json()["example"]
    assert client.post("/predict", json=example["request"]).json() == example["answer"]
    assert client.get("/model/example").json() == example["request"]


def test_the_model_tells_where_it_comes_from(client: httpx.Client) -> None:
    model = client.get("/models/digits").json()
    assert model["statistics"]["method"] == "exact"
    assert model["fold"]["entries"][0]["outcome"] == "folded"
    assert model["self_check"]["num_examples"] == 3
    assert model["device"]["provider"] == "CPUExecutionProvider"
    assert client.get("/models").json() == [model]
    assert client.get("/").json()["default_model"] == "digits"


def test_health_is_green_while_it_serves(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"live": True}
    assert client.get("/health/ready").json() == {"ready": True, "live": True}
    assert client.head("/health/ready").status_code == 200


def test_the_openapi_document_is_valid_and_shows_the_real_shape_and_example(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    OpenAPI.model_validate(document)
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert content["schema"]["properties"]["instance"]["minItems"] == 64
    assert content["example"] == client.get("/model/example").json()


def test_the_documents_open_without_a_network(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "https://" not in page
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


def test_metrics_count_requests_failures_and_the_device(client: httpx.Client) -> None:
    client.post("/predict", content=zeros())
    client.post("/predict", content=b"")
    text = client.get("/metrics").text
    assert 'foldserve_requests_total{model="digits",status="200",version="1"}' in text
    assert 'foldserve_failures_total{model="digits",reason="body_malformed",version="1"}' in text
    assert 'device="cpu",model="digits",provider="CPUExecutionProvider",version="1"' in text


def test_the_curl_line_that_is_printed_works(server: RunningServer) -> None:
    line = next(line for line in server.out if line.startswith("try: ")).removeprefix("try: ")
    answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["model"]["name"] == "digits"
    assert shlex.split(line)[0] == "curl"


def test_sigterm_ends_with_exit_code_0_and_no_noise(digits: TinyModel, tmp_path: Path) -> None:
    write(tmp_path, digits)
    with running_server("--models", str(tmp_path), "--device", "cpu") as server, server.client() as client:
        assert client.post("/predict", content=zeros()).status_code == 200
        server.process.terminate()
        assert server.process.wait(timeout=30) == 0
    assert server.err == []


def test_while_it_drains_it_answers_but_is_not_ready(digits: TinyModel, tmp_path: Path) -> None:
    write(tmp_path, digits)
    arguments = ("--models", str(tmp_path), "--device", "cpu", "--drain-seconds", "3")
    with running_server(*arguments) as server, server.client() as client:
        assert client.get("/health/ready").status_code == 200
        server.process.terminate()
        while client.get("/health/ready").status_code == 200:
            pass
        assert client.get("/health/ready").json() == {"ready": False, "live": True}
        assert client.post("/predict", content=zeros()).status_code == 200
        assert server.process.wait(timeout=30) == 0


def test_two_workers_add_their_metrics_up(digits: TinyModel, tmp_path: Path) -> None:
    write(tmp_path, digits)
    with running_server("--models", str(tmp_path), "--device", "cpu", "--workers", "2") as server:
        for _ in range(20):
            with server.client() as client:
                assert client.post("/predict", content=zeros()).status_code == 200
        with server.client() as client:
            assert 'requests_total{model="digits",status="200",version="1"} 20.0' in client.get("/metrics").text
        server.process.terminate()
        assert server.process.wait(timeout=30) == 0
    assert server.err == []


def test_a_worker_that_is_killed_is_replaced(digits: TinyModel, tmp_path: Path) -> None:
    write(tmp_path, digits)
    with running_server("--models", str(tmp_path), "--device", "cpu", "--workers", "2") as server:
        parent = server.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children")
        before = workers_of(children)
        while len(before) < 2:
            before = workers_of(children)
        os.kill(before[0], signal.SIGKILL)
        while len(workers_of(children)) < 2 or before[0] in workers_of(children):
            time.sleep(0.05)
        with server.client() as client:
            assert client.post("/predict", content=zeros()).status_code == 200
        server.process.terminate()
        assert server.process.wait(timeout=30) == 0
    assert [line for line in server.err if "a worker died (exit code -9)" in line]


def workers_of(children: Path) -> list[int]:
    """List the worker processes: the children that are not multiprocessing's own helper."""
    pids = map(int, children.read_text().split())
    return [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_the_default_model_is_chosen_among_several(digits: TinyModel, tmp_path: Path) -> None:
    write(tmp_path, digits)
    write(tmp_path, tiny_model((2,)), name="small", version="9")
    write(tmp_path, tiny_model((2,)), name="small", version="10")
    with running_server("--models", str(tmp_path), "--device", "cpu") as server, server.client() as client:
        refused = client.post("/predict", content=zeros())
        assert refused.status_code == 404
        assert "digits, small" in refused.json()["error"]
        answer = client.post("/models/small/predict", json={"instance": [1, 2]}).json()
        assert answer["model"] == {"name": "small", "version": "10"}
    default = ("--default-model", "small")
    with running_server("--models", str(tmp_path), "--device", "cpu", *default) as server, server.client() as client:
        assert client.post("/predict", json={"instance": [1, 2]}).json()["model"]["name"] == "small"


def test_a_bare_model_is_served_by_index(tmp_path: Path) -> None:
    path = tiny_model((2,)).save(tmp_path / "my.net.onnx")
    with running_server("--models", str(path), "--device", "cpu") as server, server.client() as client:
        answer = client.post("/predict", json={"instance": [0, 0]}).json()
    assert answer["model"] == {"name": "my-net", "version": None}
    assert isinstance(answer["prediction"]["label"], int)


def test_auto_on_the_cpu_says_so_aloud(digits: TinyModel, tmp_path: Path) -> None:
    write(tmp_path, digits)
    with running_server("--models", str(tmp_path), "--device", "auto") as server, server.client() as client:
        device = client.get("/model").json()["device"]
    if device["provider"] == "CUDAExecutionProvider":
        pytest.skip("a GPU works here")
    assert len(server.err) == 1
    assert server.err[0].startswith("foldserve: serving on the CPU: no GPU can be used")


def test_cuda_without_a_gpu_refuses_to_start_and_names_what_is_missing(digits: TinyModel, tmp_path: Path) -> None:
    write(tmp_path, digits)
    refused = subprocess.run(
        [sys.executable, "-m", "service", "--models", str(tmp_path), "--device", "cuda", "--port", "0"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "-1"},
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert "no GPU can be used" in refused.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_flipped_bit_in_the_model_refuses_to_start(digits: TinyModel, tmp_path: Path, workers: str) -> None:
    path = write(tmp_path, digits).model_path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused = run_and_fail("--models", str(tmp_path), "--device", "cpu", "--workers", workers)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert "model.onnx was changed after it was written" in refused.stderr


def test_an_example_with_another_answer_refuses_to_start(digits: TinyModel, tmp_path: Path) -> None:
    write(tmp_path, digits, examples=with_wrong_answer(tiny_examples(digits)))
    refused = run_and_fail("--models", str(tmp_path), "--device", "cpu")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "example 3 is answered otherwise than recorded: 'scores' differs by 0.5" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "abc"), "--port"),
        (("--port", "70000"), "--port"),
        (("--device", "tpu"), "--device"),
        (("--workers", "0"), "--workers"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_a_wrong_setting_is_one_plain_line(arguments: tuple[str, str], said: str) -> None:
    refused = run_and_fail(*arguments)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert said in refused.stderr


def test_a_port_in_use_is_one_plain_line(server: RunningServer) -> None:
    refused = run_and_fail("--port", server.url.rsplit(":", 1)[1])
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "ddress already in use" in refused.stderr


def test_nothing_to_serve_is_one_plain_line(tmp_path: Path) -> None:
    refused = run_and_fail("--models", str(tmp_path))
    assert refused.returncode == 1
    assert "nothing to serve at" in refused.stderr


def test_help_names_every_setting() -> None:
    shown = run_and_fail("--help")
    assert shown.returncode == 0
    for flag in ("--models", "--default-model", "--host", "--device", "--workers", "--max-body-bytes"):
        assert flag in shown.stdout


def test_an_interpreter_that_has_served_has_no_training_library(digits: TinyModel, tmp_path: Path) -> None:
    write(tmp_path, digits)
    program = f"""
import asyncio, sys
from pathlib import Path
from service.app import create_app
from service.protocols.contract import Question
from service.settings import Settings
import service.__main__

async def main():
    app = create_app(Settings(models=Path({str(tmp_path)!r}), device="cpu"))
    async with app.running():
        served = app.directory.find("digits")
        assert served.runner.answer(served.lanes["own"].contract, Question({zeros()!r})).status == 200

asyncio.run(main())
heavy = {{"torch", "onnx", "sklearn", "lightning", "model_export", "pandas"}}
print(sorted(heavy & {{name.partition(".")[0] for name in sys.modules}}))
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
