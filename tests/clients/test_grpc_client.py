"""Triton's gRPC client, as it is on PyPI, against a real server: the same bits as over HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.clients.scripts import Said
from tests.clients.task import Task, decode_array
from tests.service.exact_models import exact_instances, exact_model, expected_bits, write_exact_bundle
from tests.service.running_server import running_server

MODEL = exact_model()
INSTANCES = exact_instances(MODEL, 5)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Said]:
    root, port = tmp_path_factory.mktemp("models"), free_port()
    write_exact_bundle(root, MODEL, version="3")
    with running_server("--models", str(root), "--device", "cpu", "--grpc-port", str(port)) as server:
        yield Said(Task(server.url, f"127.0.0.1:{port}", "digits", "3", "x", "scores", INSTANCES))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_every_way_of_asking_gives_the_oracles_bits(said: Said) -> None:
    for way, written in said.by("triton_grpc")["scores"].items():
        assert decode_array(written).tobytes() == expected_bits(MODEL, INSTANCES), way


def test_the_client_finds_the_server_and_the_model_ready(said: Said) -> None:
    facts = said.by("triton_grpc")["facts"]
    assert [facts[fact] for fact in ("live", "ready", "model ready", "version ready")] == [True] * 4


def test_the_client_can_read_what_the_model_takes_and_gives(said: Said) -> None:
    """Protobuf's JSON has whole numbers of 64 bits as strings."""
    model = said.by("triton_grpc")["facts"]["model"]
    assert (model["name"], model["versions"]) == ("digits", ["3"])
    assert [(one["name"], one["datatype"], one["shape"]) for one in model["inputs"]] == [("x", "FP32", ["-1", "64"])]


@pytest.mark.parametrize(
    ("fact", "status", "named"),
    [
        ("wrong shape", "StatusCode.INVALID_ARGUMENT", "64"),
        ("unknown model", "StatusCode.NOT_FOUND", "nobody"),
    ],
)
def test_what_is_refused_reaches_the_caller_with_its_reason(said: Said, fact: str, status: str, named: str) -> None:
    refused = said.by("triton_grpc")["facts"][fact]
    assert refused["status"] == status
    assert named in refused["message"]


def test_the_client_counts_and_lists_what_is_loaded(said: Said) -> None:
    facts = said.by("triton_grpc")["facts"]
    [statistics], [entry] = facts["statistics"]["model_stats"], facts["index"]["models"]
    assert int(statistics["inference_count"]) >= len(INSTANCES)
    assert (entry["name"], entry["version"], entry["state"]) == ("digits", "3", "READY")
