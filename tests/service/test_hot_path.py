"""The ASGI side of predictions, with a long model's own thread in it, and FastAPI's routes beside it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import App, create_app
from service.metrics import OK
from service.protocols import hot_path
from service.protocols.paths import OWN
from service.settings import Settings
from tests.service.tiny_models import tiny_model, write_tiny_bundle

BODY = b'{"instance":[1,2,3,4]}'
SCOPE = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b""}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    """Serve a model that counts as a long one, so that it gets its own thread."""
    monkeypatch.setattr("service.scheduler.MAX_INLINE_SECONDS", 0.0)
    write_tiny_bundle(tmp_path, tiny_model())
    return create_app(Settings(models=tmp_path, device="cpu"))


def test_a_long_model_answers_from_its_thread_and_through_fastapi_the_same(app: App) -> None:
    async def main() -> list[tuple[int, bytes]]:
        async with app.running():
            assert app.directory.find("digits").runner.thread is not None
            answers = []
            for asgi in (app, await app.load_fastapi()):
                transport = httpx.ASGITransport(app=asgi)
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    for body in (BODY, b"{"):
                        response = await client.post("/predict", content=body)
                        answers.append((response.status_code, response.content))
            return answers

    hot_good, hot_bad, good, bad = asyncio.run(main())
    assert hot_good == good
    assert hot_bad == bad
    assert (good[0], bad[0]) == (200, 400)


def test_a_client_that_leaves_while_it_waits_gets_no_answer(app: App) -> None:
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": BODY}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        async with app.running():
            served = app.directory.find("digits")
            assert served.runner.thread is not None
            blocker = served.runner.thread.submit(time.sleep, 0.2)
            await hot_path.serve(app.directory.lane, served.lanes[OWN], SCOPE, receive, send)
            await blocker

    asyncio.run(main())
    assert sent == []


def test_a_bug_is_answered_as_json_without_a_stack_trace(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    async def main() -> httpx.Response:
        async with app.running():
            monkeypatch.setattr(app.directory.find("digits").lanes[OWN].contract, "try_read", bug)
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.post("/predict", content=BODY)

    response = asyncio.run(main())
    assert response.status_code == 500
    assert response.json()["code"] == "internal_server_error"
    assert "ZeroDivisionError" not in response.text
    assert "ZeroDivisionError" in caplog.text


def test_if_fastapi_can_not_be_loaded_that_is_answered_as_json_and_predictions_go_on(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ImportError("no fastapi")

    async def main() -> tuple[httpx.Response, httpx.Response]:
        async with app.running():
            monkeypatch.setattr("service.app._create_fastapi", fail)
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.get("/docs"), await client.post("/predict", content=BODY)

    documents, prediction = asyncio.run(main())
    assert (documents.status_code, documents.json()["code"]) == (500, "internal_server_error")
    assert prediction.status_code == 200
    assert "no fastapi" in caplog.text


def test_a_request_is_counted_for_the_version_that_answered_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a long model answers, another version takes its place: the answer is still the old one's."""
    monkeypatch.setattr("service.scheduler.MAX_INLINE_SECONDS", 0.0)
    write_tiny_bundle(tmp_path, tiny_model(), version="1")
    app = create_app(Settings(models=tmp_path, device="cpu", watch_seconds=0))

    async def main() -> tuple[str, dict[str, int]]:
        async with app.running():
            thread = app.directory.find("digits").runner.thread
            assert thread is not None
            blocker = thread.submit(time.sleep, 0.3)
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                waiting = asyncio.ensure_future(client.post("/predict", content=BODY))
                await asyncio.sleep(0.05)
                write_tiny_bundle(tmp_path, tiny_model(), version="2")
                await app.loader.refresh()
                answer = await waiting
            await blocker
            good = {one.labels[1]: int(one.values[OK]) for one in app.metrics.counted() if one.labels[0]}
            return answer.json()["model"]["version"], good

    assert asyncio.run(main()) == ("1", {"1": 1, "2": 0})
