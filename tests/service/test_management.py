"""Loading, unloading and rolling back by request, in every process of a server at once."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import ModelUnknown, NotReady
from service.management import Manager
from service.versions import Wishes
from service.wishes import WishBoard
from tests.service.running_server import RunningServer, running_server
from tests.service.test_loading import Bench, spoil
from tests.service.tiny_models import tiny_model, write_tiny_bundle

NUM_WORKERS = 2
BODY = b'{"instance":[1,2,3,4]}'


def write(root: Path, version: int) -> None:
    write_tiny_bundle(root, tiny_model(scale=version), version=str(version))


@pytest.fixture(scope="module", params=[1, NUM_WORKERS])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of versions 1 and 2 that looks for others only when it is asked to."""
    root: Path = tmp_path_factory.mktemp("models")
    write(root, 1)
    write(root, 2)
    arguments = ("--models", str(root), "--device", "cpu", "--watch-seconds", "0", "--workers", str(request.param))
    with running_server(*arguments) as running:
        running.root = root  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def root(server: RunningServer) -> Path:
    found: Path = server.root  # type: ignore[attr-defined]
    return found


def versions(server: RunningServer, path: str = "/predict") -> set[str]:
    """Ask over many connections, so that every process is asked; a refusal counts by its status."""
    seen = set()
    for _ in range(12):
        with server.client() as client:
            response = client.post(path, content=BODY)
        seen.add(response.json()["model"]["version"] if response.status_code == 200 else str(response.status_code))
    return seen


def call(server: RunningServer, method: str, path: str, body: Any = None) -> httpx.Response:
    with server.client() as client:
        return client.request(method, path, json=body)


def index(server: RunningServer) -> dict[str, str]:
    return {one["version"]: one["state"] for one in call(server, "POST", "/v2/repository/index").json()}


def test_a_version_can_be_rolled_back_and_the_roll_back_taken_back(server: RunningServer) -> None:
    assert versions(server) == {"2"}
    assert call(server, "PUT", "/models/digits/default", {"version": 1}).json() == {"name": "digits", "version": "1"}
    assert versions(server) == {"1"}
    assert versions(server, "/models/digits/versions/2/predict") == {"2"}
    assert call(server, "DELETE", "/models/digits/default").json() == {"name": "digits", "version": "2"}
    assert versions(server) == {"2"}


def test_a_model_can_be_unloaded_and_loaded(server: RunningServer) -> None:
    assert call(server, "POST", "/v2/repository/models/digits/unload").status_code == 200
    assert versions(server, "/models/digits/predict") == {"404"}
    assert index(server) == {"1": "UNAVAILABLE", "2": "UNAVAILABLE"}
    assert call(server, "POST", "/v2/repository/models/digits/load").status_code == 200
    assert versions(server) == {"2"}


def test_loading_takes_in_what_is_new_and_says_what_can_not_be_loaded(server: RunningServer, root: Path) -> None:
    write(root, 3)
    assert call(server, "POST", "/v2/repository/models/digits/load").status_code == 200
    assert versions(server) == {"3"}
    spoil(root, "flipped bit", version="4")
    refused = call(server, "POST", "/v2/repository/models/digits/load")
    assert (refused.status_code, refused.json()["code"]) == (400, "digest_mismatch")
    assert versions(server) == {"3"}
    assert index(server)["4"] == "UNAVAILABLE"
    shutil.rmtree(root / "digits" / "4")
    shutil.rmtree(root / "digits" / "3")
    assert call(server, "POST", "/v2/repository/models/digits/load").status_code == 200
    assert versions(server) == {"2"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v2/repository/models/nobody/load", None, 404),
        ("POST", "/v2/repository/models/..%2f..%2fetc/load", None, 404),
        ("POST", "/v2/repository/models/digits/load", {"parameters": {"config": "{}"}}, 400),
        ("POST", "/v2/repository/models/digits/load", [], 400),
        ("PUT", "/models/digits/default", {"version": 9}, 404),
        ("PUT", "/models/digits/default", {"version": [1]}, 400),
        ("PUT", "/models/digits/default", {"version": "../1"}, 404),
        ("PUT", "/models/nobody/default", {"version": 1}, 404),
        ("DELETE", "/models/nobody/default", None, 404),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    server: RunningServer, method: str, path: str, body: Any, status: int
) -> None:
    answer = call(server, method, path, body)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert versions(server) == {"2"}


def test_wishes_are_seen_by_every_process(tmp_path: Path) -> None:
    here, there = WishBoard(tmp_path), WishBoard(tmp_path)
    assert here.read() == Wishes()
    here.change(lambda wishes: wishes.with_unloaded("m"))
    there.change(lambda wishes: wishes.with_default("n", "3"))
    assert here.read() == Wishes(unloaded=frozenset({"m"}), defaults={"n": "3"}, number=2)
    assert here.all_follow(here.read())  # nobody has said that it is there
    here.follow(Wishes(number=1))
    assert not there.all_follow(there.read())
    here.follow(there.read())
    assert there.all_follow(here.read())


def test_who_follows_makes_the_directory_again_and_writes_only_what_is_new(tmp_path: Path) -> None:
    board = WishBoard(tmp_path / "shared")
    board.follow(Wishes(number=3))
    followed = tmp_path / "shared" / f"{os.getpid()}.followed"
    written = followed.stat()
    board.follow(Wishes(number=3))
    assert followed.stat() == written
    shutil.rmtree(tmp_path / "shared")
    board.follow(Wishes(number=3))
    assert followed.read_text() == "3"


def test_who_tidies_up_takes_nobodys_wishes_away(tmp_path: Path) -> None:
    board = WishBoard(tmp_path / "shared")
    wished = board.change(lambda wishes: wishes.with_unloaded("m"))
    board.read()
    shutil.rmtree(tmp_path / "shared")
    assert board.read() == wished
    assert board.change(lambda wishes: wishes.with_unloaded("n")).unloaded == {"m", "n"}


async def start(root: Path, board: WishBoard) -> tuple[Bench, Manager]:
    bench = Bench(root)
    await bench.loader.start()
    return bench, Manager(bench.loader, board, bench.directory)


def test_following_goes_on_after_it_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.management.FOLLOW_SECONDS", 0.01)
    board = WishBoard(tmp_path / "shared")

    async def main() -> dict[str, list[str]]:
        write(tmp_path, 1)
        write(tmp_path, 2)
        bench, manager = await start(tmp_path, board)
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared" / "wishes.json").mkdir()
        following = asyncio.create_task(manager.follow())
        await asyncio.sleep(0.1)
        (tmp_path / "shared" / "wishes.json").rmdir()
        WishBoard(tmp_path / "shared").change(lambda wishes: wishes.with_unloaded("digits"))
        for _ in range(500):
            if not bench.serving():
                break
            await asyncio.sleep(0.01)
        following.cancel()
        return bench.serving()

    assert asyncio.run(main()) == {}
    assert caplog.text.count("could not be followed") == 1


def test_who_waits_in_vain_for_the_others_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.management.PATIENCE_SECONDS", 0.05)

    async def main() -> tuple[Bench, str]:
        write(tmp_path, 1)
        bench, manager = await start(tmp_path, WishBoard(tmp_path / "shared"))
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared" / f"{os.getppid()}.followed").write_text("0")  # it lives, and never follows
        with pytest.raises(NotReady) as caught:
            await manager.unload("digits")
        return bench, str(caught.value)

    bench, said = asyncio.run(main())
    assert bench.serving() == {}
    assert said.startswith("the other processes have not followed within")
    assert "this one has" in said


def test_a_default_that_can_not_be_loaded_is_not_wished_for_any_more(tmp_path: Path) -> None:
    async def main() -> tuple[dict[str, str], str]:
        write(tmp_path, 1)
        write(tmp_path, 2)
        spoil(tmp_path, "flipped bit", version="3")
        board = WishBoard(None)
        bench, manager = await start(tmp_path, board)
        await manager.choose("digits", "1")
        with pytest.raises(ModelUnknown, match="version '3' of model 'digits' can not be loaded"):
            await manager.choose("digits", "3")
        return board.read().defaults, bench.directory.table.models["digits"].default

    assert asyncio.run(main()) == ({"digits": "1"}, "1")
