"""Clients that others wrote, as they are on PyPI, against a real server: the same bits in every way of asking."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.clients.scripts import Said
from tests.clients.task import Array, Task, decode_array
from tests.service.exact_models import exact_instances, exact_model, write_exact_bundle
from tests.service.running_server import running_server
from tests.service.tiny_models import TinyModel

SCRIPTS = ("plain_http", "triton_http", "triton_aio", "kserve_rest", "mlserver_codecs", "mlserver_infer")


@pytest.fixture(scope="module")
def model() -> TinyModel:
    return exact_model()


@pytest.fixture(scope="module")
def instances(model: TinyModel) -> Array:
    """Five, so that they do not fill batches of two."""
    return exact_instances(model, 5)


@pytest.fixture(scope="module")
def task(model: TinyModel, instances: Array, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    root = tmp_path_factory.mktemp("models")
    write_exact_bundle(root, model, version="3")
    with running_server("--models", str(root), "--device", "cpu") as server:
        yield Task(server.url, "", "digits", "3", "x", "scores", instances)


@pytest.fixture(scope="module")
def said(task: Task) -> Said:
    return Said(task)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_way_of_asking_gives_the_oracles_bits(script: str, said: Said, model: TinyModel, task: Task) -> None:
    expected = np.stack([model.oracle(instance) for instance in task.instances]).astype(np.float32)
    for way, written in said.by(script)["scores"].items():
        scores = decode_array(written)
        assert scores.shape == expected.shape, way
        assert scores.tobytes() == expected.tobytes(), way


@pytest.mark.parametrize("script", ["triton_http", "triton_aio", "kserve_rest"])
def test_a_client_finds_the_server_and_the_model_ready(script: str, said: Said) -> None:
    facts = said.by(script)["facts"]
    assert facts["ready"] is True
    assert facts["model ready"] is True


@pytest.mark.parametrize("script", ["triton_http", "kserve_rest"])
def test_a_model_that_is_not_there_is_not_ready(script: str, said: Said) -> None:
    assert said.by(script)["facts"]["unknown ready"] is False


@pytest.mark.parametrize("script", ["triton_http", "mlserver_codecs"])
def test_a_client_can_read_what_the_model_takes_and_gives(script: str, said: Said) -> None:
    model = said.by(script)["facts"]["model"]
    assert (model["name"], model["versions"]) == ("digits", ["3"])
    assert [(one["name"], one["datatype"], one["shape"]) for one in model["inputs"]] == [("x", "FP32", [-1, 64])]
    assert [(one["name"], one["datatype"], one["shape"]) for one in model["outputs"]] == [("scores", "FP32", [-1, 10])]


@pytest.mark.parametrize("script", ["triton_http", "mlserver_codecs"])
def test_an_answer_names_the_request_the_model_and_the_version(script: str, said: Said) -> None:
    answered = said.by(script)["facts"]["answered as"]
    assert answered == {"id": "42", "model_name": "digits", "model_version": "3"}


@pytest.mark.parametrize(
    ("script", "fact", "status"),
    [
        ("triton_http", "wrong shape", "400"),
        ("triton_http", "unknown model", "404"),
        ("kserve_rest", "wrong shape", 400),
        ("kserve_rest", "v1 wrong shape", 400),
    ],
)
def test_what_is_refused_reaches_the_caller_with_its_reason(script: str, fact: str, status: object, said: Said) -> None:
    refused = said.by(script)["facts"][fact]
    assert refused["status"] == status
    assert ("nobody" if fact == "unknown model" else "64") in refused["message"]


def test_triton_counts_what_it_was_asked(said: Said) -> None:
    [statistics] = said.by("triton_http")["facts"]["statistics"]["model_stats"]
    assert (statistics["name"], statistics["version"]) == ("digits", "3")
    assert statistics["inference_count"] >= 5
    assert statistics["inference_stats"]["success"]["count"] >= 1


def test_triton_lists_what_is_loaded(said: Said) -> None:
    [entry] = said.by("triton_http")["facts"]["index"]
    assert (entry["name"], entry["version"], entry["state"]) == ("digits", "3", "READY")


def test_tensorflow_serving_says_which_version_is_available(said: Said) -> None:
    [status] = said.by("plain_http")["facts"]["status"]["model_version_status"]
    assert (status["version"], status["state"]) == ("3", "AVAILABLE")


def test_tensorflow_serving_refuses_in_its_own_form(said: Said) -> None:
    facts = said.by("plain_http")["facts"]
    assert (facts["unknown model"]["status"], facts["wrong shape"]["status"]) == (404, 400)
    assert facts["wrong shape"]["body"]["error"]


def test_sagemaker_finds_it_alive(said: Said) -> None:
    assert said.by("plain_http")["facts"]["ping"] == 200
