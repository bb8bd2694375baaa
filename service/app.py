"""The server as one ASGI value: predictions go the short way, everything else goes to FastAPI.

Models are opened and checked in the lifespan. Ready means that the lifespan has come through. FastAPI, which is for
documents and the OpenAPI description, takes longer to import than all the rest together and 20 MB: it is loaded by the
first request that needs it, in a thread, and a server that is only asked for predictions, health and metrics never
does.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from service.errors import FoldserveError
from service.metrics import Metrics, Recorder, Running
from service.protocols.answer import Answer
from service.protocols.descriptions import example_request
from service.protocols.directory import Directory
from service.protocols.hot_path import send_answer, serve
from service.protocols.lane import Lane, answer_bug, gather
from service.protocols.predict import Endpoint, encode_request
from service.protocols.probes import answer_probe
from service.protocols.tail import answer_tail
from service.repository import Opening, Repository, ServedModel, open_repository
from service.scheduler import OwnThread, measure_inline_limit
from service.settings import Settings
from service.spare_memory import give_back

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from service.tail.recorder import Tail

EXPLANATION_SECONDS = 0.5  # of a body of some megabytes
SWITCH_SECONDS = 300e-6


class App:
    """The ASGI application, and what it knows: `directory` once it has started, `failure` if it could not.

    `predict_paths` are those where predictions are asked for, once it has started. `rest` answers all that is no
    prediction, in whatever a server wraps it. Several processes of one server share the directory `counts`. `tail`
    keeps the slowest predictions, if that is wanted.
    """

    def __init__(self, settings: Settings, counts: Path | None = None) -> None:
        self.settings = settings
        self.directory = Directory()
        self.failure: FoldserveError | None = None
        self.predict_paths: dict[str, Lane] = {}
        self.rest: ASGIApp = self._answer_rest
        self._metrics = Metrics(counts)
        self.tail = _create_tail(settings)
        self._explainer = OwnThread(name="explain", median_seconds=EXPLANATION_SECONDS)
        self._fastapi: ASGIApp | None = None
        self._loading = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        lane = self.predict_paths.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if lane is None:
            await self.rest(scope, receive, send)
        else:
            await serve(lane, scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open and check the models, be ready meanwhile, and close them.

        Raises:
            FoldserveError: what was to be served can not be.
        """
        try:
            await self._load()
        except FoldserveError as err:
            self.failure = err
            raise
        with _frozen_garbage(), _prompt_loop(), self._watched():
            self.directory.ready = True
            yield
            self.directory.ready = False
        self._unload()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Watch what runs here, if a tail report is wanted."""
        if self.tail is None:
            yield
            return
        rest = self.rest
        self.rest = self.tail.watch_rest(rest)
        try:
            with self.tail.watching():
                yield
        finally:
            self.rest = rest

    async def load_fastapi(self) -> ASGIApp:
        """Give the application for people; it is made when it is first asked for."""
        async with self._loading:
            if self._fastapi is None:
                self._fastapi = await asyncio.to_thread(_create_fastapi, self.directory, self._metrics, self.tail)
        return self._fastapi

    async def _answer_rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        answer = answer_probe(method, path, self.directory, self._metrics) or answer_tail(method, path, self.tail)
        if answer is not None:
            await send_answer(answer, send)
            return
        try:
            fastapi = await self.load_fastapi()
        except Exception as err:  # noqa: BLE001 - an import may fail in any way, and predictions need none of it
            await send_answer(answer_bug(err), send)
            return
        await fastapi(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Speak ASGI's lifespan protocol."""
        await receive()
        try:
            async with self.running():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except FoldserveError as err:
            await send({"type": "lifespan.startup.failed", "message": str(err)})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    async def _load(self) -> None:
        settings = self.settings
        opening = Opening(
            device=settings.device,
            gpu=settings.gpu_options(),
            bitwise=settings.bitwise,
            inline_seconds=await measure_inline_limit(),
        )
        repository = open_repository(settings.models, opening, default_model=settings.default_model)
        await self._fill_directory(repository)
        self.predict_paths.update(self.directory.paths())

    async def _fill_directory(self, repository: Repository) -> None:
        for name, model in repository.models.items():
            self.directory.lanes[name] = await self._create_lane(model)
        if repository.default is not None:
            self.directory.default = self.directory.lanes[repository.default.name]

    async def _create_lane(self, model: ServedModel) -> Lane:
        self._metrics.announce(model.name, model.version, _describe_running(model))
        endpoint = Endpoint(model)
        seconds = model.self_check.median_seconds
        thread = None if model.is_short else OwnThread(name=model.name, median_seconds=seconds)
        return Lane(
            endpoint=endpoint,
            thread=thread,
            tick=gather(endpoint) if model.batches.largest > 1 else None,
            explainer=self._explainer,
            metrics=await self._count(model, thread),
            max_body_bytes=self.settings.max_body_bytes,
            example_answer=await _first_answer(endpoint, thread),
        )

    async def _count(self, model: ServedModel, thread: OwnThread | None) -> Recorder:
        plain = self._metrics.for_model(model.name, model.version)
        return plain if self.tail is None else await self.tail.watch_model(model.name, plain, thread)

    def _unload(self) -> None:
        for lane in self.directory.lanes.values():
            if lane.thread is not None:
                lane.thread.close()
        self._explainer.close()


async def _first_answer(endpoint: Endpoint, thread: OwnThread | None) -> Answer:
    """Prepare a model where it will run, and give the answer to its own example."""
    body = encode_request(example_request(endpoint.model))

    def prepare_and_answer() -> Answer:
        endpoint.model.batches.prepare()
        return endpoint.answer(body)

    return prepare_and_answer() if thread is None else await thread.submit(prepare_and_answer)


def _describe_running(model: ServedModel) -> Running:
    placement = model.predictor.placement
    return Running(placement.requested, placement.provider, model.batches.num_bytes_since_prepared)


def create_app(settings: Settings, counts: Path | None = None) -> App:
    """Create the server. Nothing is opened before its lifespan starts.

    `counts` is the directory where several processes of one server put their metrics together.
    """
    return App(settings, counts)


def _create_tail(settings: Settings) -> Tail | None:
    if not settings.tail_report:
        return None
    from service.tail.recorder import Tail

    return Tail(settings.tail_report, num_processes=settings.workers)


def _create_fastapi(directory: Directory, metrics: Metrics, tail: Tail | None) -> ASGIApp:
    from service.protocols.fastapi_app import create_fastapi

    fastapi = create_fastapi(directory, metrics, tail)
    gc.freeze()
    return fastapi


@contextmanager
def _prompt_loop() -> Iterator[None]:
    """Let other threads (FastAPI's loading, a long model's reading and writing) hold Python for a short while only.

    By default a thread gives way after 5 ms, in which the loop could answer a hundred predictions.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@contextmanager
def _frozen_garbage() -> Iterator[None]:
    """Keep what was loaded out of the garbage collector's way: it lives as long as the server does."""
    gc.collect()
    give_back()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
