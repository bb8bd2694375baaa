"""Loading beside what serves: swapped in whole, refused whole, let go when it has finished."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import shutil
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import App, create_app
from service.bundle import Feature, write_bundle
from service.errors import BundleNotFound, FoldserveError
from service.loading import Loader, Loading
from service.protocols.contract import Question
from service.protocols.directory import Directory, Served, State
from service.protocols.paths import OWN, PATTERNS, Protocols
from service.repository import Opening, ServedModel
from service.settings import Settings
from service.versions import Wishes
from tests.service.tiny_models import tiny_examples, tiny_manifest, tiny_model, with_wrong_answer, write_tiny_bundle

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


# --- the loader by itself --------------------------------------------------------------------------------------------


class Standin:
    """What serves a model, as far as a loader looks: which model it is, and no thread."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.runner = self
        self.thread = None
        self.lanes: dict[str, Any] = dict.fromkeys(PATTERNS)


class Bench:
    """A loader of a folder, whose models can be made to fail when they are put to work."""

    def __init__(self, root: Path, *, keep: int = 2, default: str | None = None) -> None:
        loading = Loading(
            models_path=root,
            opening=Opening(device="cpu"),
            keep=keep,
            default_model=default,
            protocols=Protocols(vertex_path=None),
        )
        self.failing: dict[tuple[str, str | None], Exception] = {}
        self.directory = Directory()
        self.directory.ready = True
        self.loader = Loader(loading, self.directory, create=self._create, retire=self._retire, wishes=Wishes())

    def serving(self) -> dict[str, list[str]]:
        return {name: sorted(model.versions) for name, model in self.directory.table.models.items()}

    def reason(self, version: str, name: str = "digits") -> str:
        return next(one.reason for one in self.directory.states if (one.name, one.version) == (name, version))

    async def _create(self, model: ServedModel) -> Served:
        if (model.name, model.version) in self.failing:
            raise self.failing[model.name, model.version]
        return Standin(model)  # type: ignore[return-value]

    async def _retire(self, served: Served) -> None: ...


def test_what_nobody_had_foreseen_is_a_failure_of_that_version_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> Bench:
        write(tmp_path, 1)
        bench = Bench(tmp_path)
        await bench.loader.start()
        bench.failing["digits", "2"] = IndexError("list index out of range")
        write(tmp_path, 2)
        write(tmp_path, 3)
        for _ in range(2):
            await bench.loader.refresh()
        return bench

    bench = asyncio.run(main())
    assert bench.serving() == {"digits": ["1", "3"]}
    assert bench.reason("2").endswith("2: IndexError: list index out of range")
    assert [bool(record.exc_info) for record in caplog.records if record.levelno >= logging.WARNING] == [True]


def test_at_a_start_what_nobody_had_foreseen_is_told_in_one_line(tmp_path: Path) -> None:
    write(tmp_path, 1)
    bench = Bench(tmp_path)
    bench.failing["digits", "1"] = KeyError("x")
    with pytest.raises(FoldserveError, match=r"^.*digits/1: KeyError: 'x'$"):
        asyncio.run(bench.loader.start())


def test_a_bundle_that_confuses_us_does_not_keep_others_from_being_loaded(tmp_path: Path) -> None:
    """A feature's name with quotes in it, and an axis whose name is no text."""

    async def main() -> tuple[str, str]:
        write(tmp_path, 1)
        async with running(tmp_path) as app:
            features = tuple(Feature(name=name) for name in "abcd")
            quotes = write_tiny_bundle(tmp_path, tiny_model(features=features), name="quotes").directory
            manifest = (quotes / "manifest.json").read_text()
            (quotes / "manifest.json").write_text(manifest.replace('"a"', '"a\\"b"'))
            draft = tiny_model().save(tmp_path / "draft")
            draft.write_bytes(draft.read_bytes().replace(b"batch", b"bat\xffh"))
            manifest_of_axes = tiny_manifest(tiny_model(), name="axes")
            write_bundle(tmp_path / "axes" / "1", manifest=manifest_of_axes, model_path=draft, examples=())
            write(tmp_path, 2)
            await app.loader.refresh()
            axes = next(one.reason for one in app.directory.states if one.name == "axes")
            return await version_at(app, "/models/digits/predict"), axes

    version, reason = asyncio.run(main())
    assert version == "2"
    assert "is no text in UTF-8" in reason


def test_what_fails_slowly_elsewhere_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that is old by the time that all else is loaded is a failure still."""
    monkeypatch.setattr("service.loading.RETRY_SECONDS", 0.0)

    async def main() -> dict[str, list[str]]:
        write(tmp_path, 1)
        bench = Bench(tmp_path, keep=1)
        await bench.loader.start()
        spoil(tmp_path, "flipped bit")
        write(tmp_path, 1, name="other")
        await bench.loader.refresh()
        return bench.serving()

    assert asyncio.run(main()) == {"digits": ["1"], "other": ["1"]}


def test_a_later_start_serves_what_it_can_and_names_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, 1)
    (write(tmp_path, 1, name="broken") / "model.onnx").write_bytes(b"<html>")
    bench = Bench(tmp_path, default="missing")
    with pytest.raises(FoldserveError, match="broken"):
        asyncio.run(bench.loader.start())
    bench = Bench(tmp_path, default="missing")
    caplog.clear()
    bench.directory.ready = False
    asyncio.run(bench.loader.start(strict=False))
    assert bench.serving() == {"digits": ["1"]}
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "broken, version 1 can not be loaded",
        "the default model 'missing' is not there",
    ]


def test_a_later_start_with_nothing_to_serve_at_all_fails(tmp_path: Path) -> None:
    (write(tmp_path, 1) / "model.onnx").write_bytes(b"<html>")
    with pytest.raises(FoldserveError, match=r"model\.onnx"):
        asyncio.run(Bench(tmp_path).loader.start(strict=False))


def test_a_folder_that_can_not_be_read_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """Root may read everything: a link to itself is what nobody can list."""
    (tmp_path / "models").symlink_to("models")
    with pytest.raises(BundleNotFound, match="models can not be read: "):
        asyncio.run(Bench(tmp_path / "models").loader.start())


def test_a_version_without_a_manifest_for_a_while_goes_on_and_a_removed_one_does_not(tmp_path: Path) -> None:
    async def main() -> list[dict[str, list[str]]]:
        write(tmp_path, 1)
        (write(tmp_path, 2) / "manifest.json").rename(tmp_path / "aside.json")
        shutil.copy(tmp_path / "aside.json", tmp_path / "digits" / "2" / "manifest.json")
        bench = Bench(tmp_path)
        await bench.loader.start()
        seen = []
        (tmp_path / "digits" / "2" / "manifest.json").unlink()
        await bench.loader.refresh()
        seen.append(bench.serving())
        shutil.rmtree(tmp_path / "digits" / "2")
        await bench.loader.refresh()
        return [*seen, bench.serving()]

    assert asyncio.run(main()) == [{"digits": ["1", "2"]}, {"digits": ["1"]}]


def test_a_model_whose_folder_can_not_be_listed_goes_on_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> Bench:
        write(tmp_path, 1)
        write(tmp_path, 1, name="letters")
        (tmp_path / "letters" / "labels.json").write_text('{"stable": 1}')
        bench = Bench(tmp_path)
        await bench.loader.start()
        (tmp_path / "letters").rename(tmp_path / "away.d")
        (tmp_path / "letters").symlink_to("letters")
        await bench.loader.refresh()
        return bench

    bench = asyncio.run(main())
    assert bench.serving() == {"digits": ["1"], "letters": ["1"]}
    assert bench.directory.table.models["letters"].labels == {"stable": "1"}
    assert f"{tmp_path / 'letters'} can not be read" in caplog.text


def test_a_model_that_comes_after_its_manifest_is_noticed(tmp_path: Path) -> None:
    async def main() -> list[dict[str, list[str]]]:
        write(tmp_path, 1)
        bench = Bench(tmp_path)
        await bench.loader.start()
        model_path = write(tmp_path, 2) / "model.onnx"
        model_path.rename(tmp_path / "late")
        await bench.loader.refresh()
        without = bench.serving()
        (tmp_path / "late").rename(model_path)
        await bench.loader.refresh()
        return [without, bench.serving()]

    assert asyncio.run(main()) == [{"digits": ["1"]}, {"digits": ["1", "2"]}]
