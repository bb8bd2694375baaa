"""Loading beside what serves: swapped in whole, refused whole, let go when it has finished."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import App, create_app
from service.protocols.contract import Question
from service.protocols.directory import State
from service.protocols.paths import OWN
from service.settings import Settings
from tests.service.tiny_models import tiny_examples, tiny_model, with_wrong_answer, write_tiny_bundle

BODY = b'{"instance":[1,2,3,4]}'


@asynccontextmanager
async def running(root: Path, **settings: Any) -> AsyncIterator[App]:
    """Serve a folder, and look at it again only when the test says so."""
    app = create_app(Settings(models=root, device="cpu", watch_seconds=0, **settings))
    async with app.running():
        yield app


def write(root: Path, version: int, *, name: str = "digits", scale: float = 1.0) -> Path:
    """Write a version whose answers are its own."""
    model = tiny_model(scale=scale * version)
    return write_tiny_bundle(root, model, name=name, version=str(version)).directory


async def ask(app: App, path: str = "/predict") -> tuple[int, Any]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post(path, content=BODY)
        return response.status_code, response.json()


async def version_at(app: App, path: str = "/predict") -> str:
    status, answer = await ask(app, path)
    assert status == 200, answer
    return str(answer["model"]["version"])


def test_a_new_version_takes_over_and_the_one_before_stays_at_hand(tmp_path: Path) -> None:
    async def main() -> list[str]:
        write(tmp_path, 1)
        async with running(tmp_path) as app:
            before = await version_at(app)
            write(tmp_path, 2)
            unseen = await version_at(app)
            await app.loader.refresh()
            paths = ("/predict", "/models/digits/predict", "/models/digits/versions/1/predict")
            return [before, unseen, *[await version_at(app, path) for path in paths]]

    assert asyncio.run(main()) == ["1", "1", "2", "2", "1"]


def test_labels_name_versions_and_the_label_default_rolls_back(tmp_path: Path) -> None:
    async def main() -> list[str]:
        for version in (1, 2):
            write(tmp_path, version)
        labels = tmp_path / "digits" / "labels.json"
        labels.write_text(json.dumps({"canary": 2, "stable": 1}))
        async with running(tmp_path) as app:
            seen = [await version_at(app, f"/models/digits/labels/{label}/predict") for label in ("canary", "stable")]
            labels.write_text(json.dumps({"canary": 2, "stable": 1, "default": 1}))
            await app.loader.refresh()
            labels_broken = await version_at(app)
            labels.write_text("{")
            await app.loader.refresh()
            return [*seen, labels_broken, await version_at(app)]

    assert asyncio.run(main()) == ["2", "1", "1", "1"]


@pytest.mark.parametrize("mistake", ["flipped bit", "wrong answer", "no model", "another name"])
def test_what_can_not_be_loaded_changes_nothing_and_says_why(tmp_path: Path, mistake: str) -> None:
    async def main() -> tuple[str, tuple[State, ...]]:
        write(tmp_path, 1)
        async with running(tmp_path) as app:
            spoil(tmp_path, mistake)
            await app.loader.refresh()
            return await version_at(app), app.directory.states

    serving, states = asyncio.run(main())
    assert serving == "1"
    assert [(one.version, one.state) for one in states] == [("1", "READY"), ("2", "UNAVAILABLE")]
    assert states[1].reason != ""


def spoil(root: Path, mistake: str, version: str = "2") -> None:
    """Put a version there that has something wrong with it."""
    model = tiny_model()
    examples = with_wrong_answer(tiny_examples(model)) if mistake == "wrong answer" else None
    directory = write_tiny_bundle(root, model, version=version, examples=examples).directory
    if mistake == "flipped bit":
        content = bytearray((directory / "model.onnx").read_bytes())
        content[-5] ^= 1
        (directory / "model.onnx").write_bytes(content)
    elif mistake == "no model":
        (directory / "model.onnx").write_bytes(b"<html>")
    elif mistake == "another name":
        manifest = (directory / "manifest.json").read_text()
        (directory / "manifest.json").write_text(manifest.replace('"digits"', '"letters"'))


def test_at_start_an_older_version_serves_if_the_newest_is_broken(tmp_path: Path) -> None:
    async def main() -> str:
        write(tmp_path, 1)
        spoil(tmp_path, "flipped bit")
        async with running(tmp_path) as app:
            return await version_at(app)

    assert asyncio.run(main()) == "1"


def test_models_come_and_go(tmp_path: Path) -> None:
    async def main() -> tuple[int, str, int, int]:
        write(tmp_path, 1)
        async with running(tmp_path, default_model="digits") as app:
            nobody, _ = await ask(app, "/models/letters/predict")
            write(tmp_path, 7, name="letters")
            await app.loader.refresh()
            seven = await version_at(app, "/models/letters/predict")
            shutil.rmtree(tmp_path / "letters")
            await app.loader.refresh()
            gone, _ = await ask(app, "/models/letters/predict")
            default, _ = await ask(app)
            return nobody, seven, gone, default

    assert asyncio.run(main()) == (404, "7", 404, 200)


def test_if_the_folder_is_away_for_a_while_what_is_loaded_goes_on(tmp_path: Path) -> None:
    async def main() -> tuple[str, str]:
        (tmp_path / "models").mkdir()
        write(tmp_path / "models", 1)
        async with running(tmp_path / "models") as app:
            (tmp_path / "models").rename(tmp_path / "away")
            await app.loader.refresh()
            without = await version_at(app)
            (tmp_path / "away").rename(tmp_path / "models")
            await app.loader.refresh()
            return without, await version_at(app)

    assert asyncio.run(main()) == ("1", "1")


def test_a_version_that_was_written_anew_is_loaded_anew(tmp_path: Path) -> None:
    async def main() -> tuple[Any, Any]:
        write(tmp_path, 1)
        async with running(tmp_path) as app:
            _, before = await ask(app)
            (tmp_path / "digits" / "1" / "manifest.json").unlink()
            await app.loader.refresh()
            write(tmp_path, 1, scale=2.0)
            await app.loader.refresh()
            _, after = await ask(app)
            return before, after

    before, after = asyncio.run(main())
    assert before["prediction"]["scores"] != after["prediction"]["scores"]


def test_what_is_let_go_is_freed_and_what_waits_for_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long model has a thread; a request that stands in its queue when the model goes is answered by that model."""
    monkeypatch.setattr("service.scheduler.MAX_INLINE_SECONDS", 0.0)

    async def main() -> tuple[list[Any], bool]:
        write(tmp_path, 1)
        async with running(tmp_path, versions=1) as app:
            served = app.directory.find("digits")
            old, lane = weakref.ref(served.model.predictor), served.lanes[OWN]
            waiting = [asyncio.get_running_loop().create_future() for _ in range(5)]
            for future in waiting:
                lane.ask(Question(BODY), future.set_result)
            write(tmp_path, 2)
            await app.loader.refresh()
            answers = [json.loads(answer.body) for answer in await asyncio.gather(*waiting)]
            assert await version_at(app) == "2"
            del served, lane, waiting, future
            await asyncio.sleep(0.1)
            gc.collect()
            return answers, old() is None

    answers, is_freed = asyncio.run(main())
    assert [answer["model"]["version"] for answer in answers] == ["1"] * 5
    assert is_freed


def test_the_first_version_is_freed_too_although_its_memory_was_kept_from_the_collector(tmp_path: Path) -> None:
    async def main() -> bool:
        write(tmp_path, 1)
        async with running(tmp_path, versions=1) as app:
            old = weakref.ref(app.directory.find("digits").model.predictor._session)
            write(tmp_path, 2)
            await app.loader.refresh()
            await asyncio.sleep(0.1)
            gc.collect()
            return old() is None

    assert asyncio.run(main())
