"""The server as one ASGI value: predictions go the short way, everything else goes to FastAPI.

Models are opened and checked in the lifespan. Ready means that the lifespan has come through.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import FoldserveError
from service.metrics import Metrics, Running
from service.protocols.answer import Answer
from service.protocols.directory import Directory
from service.protocols.documents import add_documents, example_request, foldserve_version
from service.protocols.hot_path import serve
from service.protocols.http_errors import answer_error, answer_status
from service.protocols.lane import Lane, gather
from service.protocols.openapi import add_predict_routes, to_response
from service.protocols.predict import Endpoint, encode_request
from service.repository import Opening, Repository, ServedModel, open_repository
from service.scheduler import OwnThread, measure_inline_limit
from service.settings import Settings


class App:
    """The ASGI application, and what it knows: `directory` once it has started, `failure` if it could not.

    `predict_paths` are those where predictions are asked for, once it has started. `rest` answers all that is no
    prediction: FastAPI, in whatever a server wraps it. Several processes of one server share the directory `counts`.
    """

    def __init__(self, settings: Settings, counts: Path | None = None) -> None:
        self.settings = settings
        self.directory = Directory()
        self.failure: FoldserveError | None = None
        self._metrics = Metrics(counts)
        self.predict_paths: dict[str, Lane] = {}
        self.fastapi = self._create_fastapi()
        self.rest: ASGIApp = self.fastapi

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        lane = None
        if scope["type"] == "http" and scope["method"] == "POST":
            lane = self.predict_paths.get(scope["path"])
        if lane is None:
            await self.rest(scope, receive, send)
        else:
            await serve(lane, scope, receive, send)

    def _create_fastapi(self) -> FastAPI:
        # The assets of /docs come with the package: the page opens without a network.
        app = FastAPIOffline(title="foldserve", version=foldserve_version(), redoc_url=None, lifespan=self._lifespan)
        _answer_errors(app)
        add_documents(app, self.directory, self._metrics)
        return app

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        try:
            await self._load()
        except FoldserveError as err:
            self.failure = err
            raise
        add_predict_routes(app, self.directory)
        with _frozen_garbage():
            self.directory.ready = True
            yield
            self.directory.ready = False
        self._unload()

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
            metrics=self._metrics.for_model(model.name, model.version),
            max_body_bytes=self.settings.max_body_bytes,
            example_answer=await _first_answer(endpoint, thread),
        )

    def _unload(self) -> None:
        for lane in self.directory.lanes.values():
            if lane.thread is not None:
                lane.thread.close()


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


@contextmanager
def _frozen_garbage() -> Iterator[None]:
    """Keep what was loaded out of the garbage collector's way: it lives as long as the server does."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(FoldserveError)
    async def on_own_error(_: Request, err: FoldserveError) -> Response:
        return to_response(answer_error(err))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, err: HTTPException) -> Response:
        message = f"{request.method} {request.url.path[:200]}: {str(err.detail).lower()}; GET / lists what there is"
        headers = tuple((name.lower().encode(), value.encode()) for name, value in (err.headers or {}).items())
        return to_response(answer_status(err.status_code, message, headers))

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, err: RequestValidationError) -> Response:
        return to_response(answer_status(422, f"the request is invalid: {err.errors()[0]['msg']}"))

    @app.exception_handler(Exception)
    async def on_bug(_: Request, __: Exception) -> Response:
        return to_response(answer_status(500, "the server failed on this request; its log says why"))
