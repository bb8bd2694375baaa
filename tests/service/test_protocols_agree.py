"""Whatever protocol carries an instance, the numbers that come back are the same to the bit; and right."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.bundle import Feature
from tests.service.running_server import RunningServer, running_server
from tests.service.tiny_models import Array, tiny_model, write_tiny_bundle

WIDTH = 6
MODEL = tiny_model((WIDTH,), num_labels=4, features=tuple(Feature(name=f"f{n}") for n in range(WIDTH)))
# Six products of values below 1e4 with weights around 1, in float32: a few units in the last place of 1e5.
TOLERANCE = 0.1
VERTEX = {"AIP_MODE": "PREDICTION", "AIP_HEALTH_ROUTE": "/well", "AIP_PREDICT_ROUTE": "/vertex"}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root: Path = tmp_path_factory.mktemp("models")
    write_tiny_bundle(root, MODEL)
    with running_server("--models", str(root), "--host", "127.0.0.1", "--device", "cpu", environment=VERTEX) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def post(client: httpx.Client, path: str, body: Any, headers: dict[str, str] = JSON) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post(path, content=content, headers=headers)
    assert response.status_code == 200, (path, response.text)
    return response


def own(client: httpx.Client, row: Array) -> Any:
    return post(client, "/predict", {"instance": row.tolist()}).json()["prediction"]["scores"]


def own_by_name(client: httpx.Client, row: Array) -> Any:
    named = dict(reversed([(f"f{n}", value) for n, value in enumerate(row.tolist())]))
    return post(client, "/models/digits/versions/1/predict", {"instance": named}).json()["prediction"]["scores"]


def own_top(client: httpx.Client, row: Array) -> Any:
    """Put the sorted scores back into the labels' order."""
    found = post(client, "/predict?top_k=9", {"instance": row.tolist()}).json()["prediction"]
    return [score for _, score in sorted(zip(found["labels"], found["scores"], strict=True))]


def tensor(row: Array, **more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, WIDTH], **more}


def open_inference(client: httpx.Client, row: Array) -> Any:
    body = {"inputs": [tensor(row, data=row.tolist())]}
    return post(client, "/v2/models/digits/infer", body).json()["outputs"][0]["data"]


def open_inference_binary(client: httpx.Client, row: Array) -> Any:
    head = json.dumps(
        {
            "inputs": [tensor(row, parameters={"binary_data_size": 4 * WIDTH})],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    headers = {"inference-header-content-length": str(len(head))}
    response = post(client, "/v2/models/digits/versions/1/infer", head + row.tobytes(), headers)
    return read_tail(response)


def open_inference_raw(client: httpx.Client, row: Array) -> Any:
    return read_tail(post(client, "/v2/models/digits/infer", row.tobytes(), {"inference-header-content-length": "0"}))


def read_tail(response: httpx.Response) -> Any:
    return np.frombuffer(response.content[int(response.headers["inference-header-content-length"]) :], np.float32)


def tensorflow_rows(client: httpx.Client, row: Array) -> Any:
    return post(client, "/v1/models/digits:predict", {"instances": [row.tolist()]}).json()["predictions"][0]


def tensorflow_columns(client: httpx.Client, row: Array) -> Any:
    body = {"inputs": {"x": [row.tolist()]}}
    return post(client, "/v1/models/digits/versions/1:predict", body).json()["outputs"][0]


def tensorflow_crowd(client: httpx.Client, row: Array) -> Any:
    """Between others: they change nothing."""
    others = np.random.default_rng(1).normal(size=(40, WIDTH)).astype(np.float32).tolist()
    body = {"instances": [*others[:20], row.tolist(), *others[20:]]}
    return post(client, "/v1/models/digits:predict", body).json()["predictions"][20]


def vertex(client: httpx.Client, row: Array) -> Any:
    return post(client, "/vertex", {"instances": [row.tolist()]}).json()["predictions"][0]


def mlflow_split(client: httpx.Client, row: Array) -> Any:
    columns = {"columns": [f"f{n}" for n in reversed(range(WIDTH))], "data": [row[::-1].tolist()]}
    return post(client, "/invocations", {"dataframe_split": columns}).json()["predictions"][0]


def mlflow_records(client: httpx.Client, row: Array) -> Any:
    record = {f"f{n}": value for n, value in enumerate(row.tolist())}
    return post(client, "/invocations", {"dataframe_records": [record]}).json()["predictions"][0]


def csv(client: httpx.Client, row: Array) -> Any:
    text = ",".join(map(repr, row.tolist())).encode()
    return post(client, "/invocations", text, {"content-type": "text/csv"}).json()["predictions"][0]


def npy(client: httpx.Client, row: Array) -> Any:
    """By numpy's format both ways, as SageMaker's SDK does: it sends float64."""
    file = io.BytesIO()
    np.save(file, row[np.newaxis].astype(np.float64))
    headers = {"content-type": "application/x-npy", "accept": "application/x-npy"}
    response = post(client, "/invocations", file.getvalue(), headers)
    return np.load(io.BytesIO(response.content), allow_pickle=False)[0]


def raw(client: httpx.Client, row: Array) -> Any:
    headers = {"content-type": "application/octet-stream"}
    return post(client, "/invocations", row.tobytes(), headers).json()["predictions"][0]


WAYS: list[Callable[[httpx.Client, Array], Any]] = [
    *(own, own_by_name, own_top, open_inference, open_inference_binary, open_inference_raw),
    *(tensorflow_rows, tensorflow_columns, tensorflow_crowd, vertex),
    *(mlflow_split, mlflow_records, csv, npy, raw),
]
rows = st.lists(st.floats(-1e4, 1e4, width=32), min_size=WIDTH, max_size=WIDTH)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=rows)
def test_every_protocol_gives_the_same_bits(client: httpx.Client, values: list[float]) -> None:
    row = np.array(values, np.float32)
    answers = {way.__name__: np.asarray(way(client, row), np.float32).tobytes() for way in WAYS}
    assert set(answers.values()) == {answers["open_inference_raw"]}, answers
    np.testing.assert_allclose(np.frombuffer(answers["own"], np.float32), MODEL.oracle(row), atol=TOLERANCE)


def test_floats_are_the_shortest_text_that_reads_back_to_the_same_float32(client: httpx.Client) -> None:
    row = np.array([0.1, 1 / 3, 1e-3, 2.5, -7.0, 123.456], np.float32)
    text = post(client, "/v1/models/digits:predict", {"instances": [row.tolist()]}).text
    written = text[text.index("[[") + 2 : text.index("]]")].split(",")
    assert written == [np.format_float_positional(score, unique=True, trim="0") for score in own_scores(client, row)]


def own_scores(client: httpx.Client, row: Array) -> list[np.float32]:
    return [np.float32(score) for score in own(client, row)]


def test_vertex_asks_for_health_where_it_said(client: httpx.Client) -> None:
    assert client.get("/well").status_code == 200
    assert client.get("/ping").status_code == 200
