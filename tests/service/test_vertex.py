"""Vertex AI: instances in, predictions out in the same order, and an environment that is read or refused by name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import RequestError, SettingsInvalid
from service.protocols.contract import Headers, Question
from service.protocols.vertex import VertexAI
from service.repository import ServedModel
from service.vertex_environment import VertexEnvironment, read_vertex_environment
from tests.service.served_models import ask, read, serve
from tests.service.tiny_models import TOLERANCE, tiny_model

ROUTES = {"AIP_MODE": "PREDICTION", "AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/predict"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((4,)), tmp_path_factory.mktemp("vertex"))


def post(model: ServedModel, body: Any) -> tuple[int, Any]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = ask(model, VertexAI(model), text)
    return answer.status, json.loads(answer.body)


@pytest.mark.parametrize("parameters", [{}, {"parameters": None}, {"parameters": {"top_k": 1}}])
def test_instances_become_predictions_in_the_same_order(model: ServedModel, parameters: dict[str, Any]) -> None:
    instances = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32)
    status, answer = post(model, {"instances": instances.tolist(), **parameters})
    oracle = [tiny_model((4,)).oracle(instance) for instance in instances]
    assert status == 200
    assert answer["deployed_model"] == {"name": "digits", "version": "4"}
    np.testing.assert_allclose(answer["predictions"], oracle, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({}, "instances", "'instances' is missing"),
        ({"instance": [1, 2, 3, 4]}, "instance", "Did you mean 'instances'?"),
        ({"instances": [[1, 2, 3, 4]], "parameters": 3}, "parameters", "expected an object, or null; got 3"),
        ({"instances": [[1, 2, "3", 4]]}, "instances[0][2]", "a number, got the string '3'"),
    ],
)
def test_what_is_wrong_is_named(model: ServedModel, body: Any, field: str, said: str) -> None:
    status, answer = post(model, body)
    assert (status, answer["field"]) == (400, field)
    assert said in answer["error"]


def test_a_tensor_of_bytes_is_read_by_the_media_type_of_triton(model: ServedModel) -> None:
    """The golden request of the binary tensor extension: 135 bytes of JSON, 16 of numbers."""
    head = (
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}],'
        b'"parameters":{"binary_data_output":true}}'
    )
    assert len(head) == 135
    instance = np.arange(4, dtype=np.float32)
    media_type = b"application/vnd.vertex-ai-triton.binary+json;json-header-size=135"
    question = Question(head + instance.tobytes(), Headers(content_type=media_type))
    assert [bytes(each) for each in VertexAI(model).read(question).instances] == [instance.tobytes()]


@given(place=st.integers(0, 50), byte=st.integers(0, 255))
def test_a_mutated_body_is_read_alike_or_refused(model: ServedModel, place: int, byte: int) -> None:
    body = bytearray(b'{"instances":[[1,2.5,-3,4e2]],"parameters":{"a":1}}')
    body[place] = byte
    try:
        instances = read(VertexAI(model), bytes(body)).instances
    except RequestError:
        return
    assert [len(instance) for instance in instances] == [16]


def test_the_environment_of_vertex_is_read() -> None:
    found = read_vertex_environment({**ROUTES, "AIP_HTTP_PORT": "9000", "AIP_STORAGE_URI": "gs://bucket/model"})
    assert found.is_predicting
    assert (found.port, found.health_route, found.predict_route) == (9000, "/health", "/predict")
    assert found.storage_uri == "gs://bucket/model"
    assert read_vertex_environment(ROUTES).port == 8080


@pytest.mark.parametrize("mode", [{}, {"AIP_MODE": ""}, {"AIP_MODE": "TRAINING"}])
def test_elsewhere_nothing_is_asked_of_the_environment(mode: dict[str, str]) -> None:
    found = read_vertex_environment(mode)
    assert found == VertexEnvironment(mode=mode.get("AIP_MODE", ""))
    assert not found.is_predicting


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"AIP_HEALTH_ROUTE": ""}, "AIP_HEALTH_ROUTE: AIP_MODE is PREDICTION"),
        ({"AIP_PREDICT_ROUTE": "predict"}, "got 'predict'"),
        ({"AIP_HTTP_PORT": "http"}, "AIP_HTTP_PORT: expected a port"),
        ({"AIP_HTTP_PORT": "65536"}, "got '65536'"),
        ({"AIP_HTTP_PORT": "٣"}, "AIP_HTTP_PORT"),
    ],
)
def test_an_environment_that_can_not_be_served_is_refused(changed: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsInvalid, match=said):
        read_vertex_environment(ROUTES | changed)
    for name in ("AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE"):
        with pytest.raises(SettingsInvalid, match=name):
            read_vertex_environment({key: value for key, value in ROUTES.items() if key != name})
