"""Keys over real connections: on the short way, over ASGI, on documents, in management and by gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import SettingsInvalid
from service.gate import Gate
from service.keys.file import add_key, remove_key
from service.keys.key import Key, create_key, hash_key
from service.route_groups import Group
from service.settings import Settings
from service.vertex_environment import VertexEnvironment
from tests.service.running_server import RunningServer, running_server, wait_until
from tests.service.tiny_models import tiny_model, write_tiny_bundle

BODY = b'{"instance":[1,2,3,4]}'
LOAD = "/v2/repository/models/digits/load"


def new_key(path: Path, name: str, *groups: Group) -> str:
    key = create_key()
    add_key(path, Key(name, frozenset(groups), hash_key(key.encode())))
    return key


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("models")
    write_tiny_bundle(root, tiny_model())
    return root


@pytest.fixture(scope="module", params=["fast", "asgi"])
def server(request: pytest.FixtureRequest, root: Path) -> Iterator[RunningServer]:
    keys = root.with_name(f"keys-{request.param}.txt")
    shop = new_key(keys, "shop", Group.PREDICT)
    boss = new_key(keys, "boss", Group.PREDICT, Group.READ, Group.MANAGE)
    arguments = ("--models", str(root), "--device", "cpu", "--keys", str(keys), "--http", request.param)
    with running_server(*arguments, "--protect", "predict,read") as running:
        running.keys = {"shop": shop, "boss": boss, "file": str(keys)}  # type: ignore[attr-defined]
        yield running


def keys_of(server: RunningServer) -> dict[str, str]:
    found: dict[str, str] = server.keys  # type: ignore[attr-defined]
    return found


def call(server: RunningServer, method: str, path: str, key: str = "", **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with server.client() as client:
        return client.request(method, path, headers=headers, **more)


def test_a_prediction_wants_a_key_for_it(server: RunningServer) -> None:
    keys = keys_of(server)
    answers = [call(server, "POST", "/predict", key, content=BODY) for key in ("", "fsk_wrong", keys["shop"])]
    assert [answer.status_code for answer in answers] == [401, 401, 200]
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert answers[0].json()["code"] == "key_missing"
    with server.client() as client:
        assert client.post("/predict", content=BODY, headers={"x-api-key": keys["shop"]}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models/digits:predict", "/v2/models/digits/infer", "/invocations", "/nobody"])
def test_no_protocol_is_forgotten(server: RunningServer, path: str) -> None:
    assert call(server, "POST", path, content=b"{}").status_code == 401


def test_documents_want_a_key_if_that_was_said_and_health_never_does(server: RunningServer) -> None:
    keys = keys_of(server)
    for path in ("/", "/metrics", "/docs", "/v2/models/digits"):
        assert [call(server, "GET", path, key).status_code for key in ("", keys["shop"], keys["boss"])] == [
            401,
            403,
            200,
        ]
    for path in ("/health/live", "/health/ready", "/ping", "/v2/health/ready"):
        assert call(server, "GET", path).status_code == 200


def test_managing_wants_a_key_for_it(server: RunningServer) -> None:
    keys = keys_of(server)
    assert [call(server, "POST", LOAD, key).status_code for key in ("", keys["shop"], keys["boss"])] == [401, 403, 200]


def test_a_key_comes_and_goes_without_a_restart(server: RunningServer) -> None:
    path = Path(keys_of(server)["file"])
    guest = new_key(path, "guest", Group.PREDICT)
    wait_until(lambda: call(server, "POST", "/predict", guest, content=BODY).status_code == 200)
    remove_key(path, "guest")
    wait_until(lambda: call(server, "POST", "/predict", guest, content=BODY).status_code == 401)
    assert call(server, "POST", "/predict", keys_of(server)["shop"], content=BODY).status_code == 200


def test_a_body_is_not_waited_for_without_a_key(server: RunningServer) -> None:
    with server.client() as client:
        answer = client.post("/predict", content=b" " * 1_000_000)
    assert answer.status_code == 401


def test_refusals_are_counted(server: RunningServer) -> None:
    call(server, "POST", "/predict", content=BODY)
    text = call(server, "GET", "/metrics", keys_of(server)["boss"]).text
    assert 'foldserve_failures_total{model="",reason="key_missing",version=""}' in text


def test_without_keys_only_this_machine_manages(root: Path) -> None:
    with running_server("--models", str(root), "--device", "cpu", "--host", "0.0.0.0") as server:  # noqa: S104 - that is the point
        server.url = server.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        refused = call(server, "POST", LOAD)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
        assert "python -m service.keys new" in refused.json()["error"]
        assert call(server, "POST", "/predict", content=BODY).status_code == 200
    with running_server("--models", str(root), "--device", "cpu") as server, server.client() as client:
        assert client.post(LOAD).status_code == 200
        assert client.post(LOAD, headers={"origin": "http://evil.example"}).status_code == 403
        assert client.post(LOAD, headers={"host": "evil.example"}).status_code == 403


def test_grpc_wants_the_same_keys(root: Path) -> None:
    grpc = pytest.importorskip("tritonclient.grpc")
    file = root.with_name("keys-grpc.txt")
    key = new_key(file, "shop", Group.PREDICT)
    arguments = ("--models", str(root), "--device", "cpu", "--keys", str(file), "--grpc-port", "0")
    with running_server(*arguments) as server:
        address = "".join(server.out).split("gRPC on ")[1].split()[0]
        with grpc.InferenceServerClient(address) as client:
            tensor = grpc.InferInput("x", [1, 4], "FP32")
            tensor.set_data_from_numpy(__import__("numpy").ones((1, 4), "float32"))
            with pytest.raises(grpc.InferenceServerException, match="UNAUTHENTICATED"):
                client.infer("digits", [tensor])
            with pytest.raises(grpc.InferenceServerException, match="PERMISSION_DENIED"):
                client.unload_model("digits", headers={"x-api-key": key})
            assert client.infer("digits", [tensor], headers={"x-api-key": key}).as_numpy("scores").shape == (1, 3)


def test_saying_what_wants_a_key_without_keys_is_a_mistake() -> None:
    with pytest.raises(SettingsInvalid, match="--keys"):
        Gate(Settings(protect="read"), VertexEnvironment())
