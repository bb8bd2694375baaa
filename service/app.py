"""The server as one ASGI value: predictions go the short way, everything else goes to FastAPI.

Models are opened and checked in the lifespan. Ready means that the lifespan has come through.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import FoldserveError
from service.metrics import Metrics
from service.protocols.directory import Directory
from service.protocols.documents import add_documents, example_request, foldserve_version
from service.protocols.hot_path import Lane, serve
from service.protocols.http_errors import answer_error, answer_status
from service.protocols.openapi import add_predict_routes, to_response
from service.protocols.predict import Endpoint, encode_request
from service.repository import Repository, ServedModel, open_repository
from service.scheduler import Tick, choose_thread
from service.settings import Settings, metrics_directory


class App:
    """The ASGI application, and what it knows: `directory` once it has started, `failure` if it could not.

    `rest` answers all that is no prediction: FastAPI, in whatever a server wraps it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.directory = Directory()
        self.failure: FoldserveError | None = None
        self._metrics = Metrics(metrics_directory())
        self._predict_paths: dict[str, Lane] = {}
        self.fastapi = self._create_fastapi()
        self.rest: ASGIApp = self.fastapi

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        lane = None
        if scope["type"] == "http" and scope["method"] == "POST":
            lane = self._predict_paths.get(scope["path"])
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
            self._load()
        except FoldserveError as err:
            self.failure = err
            raise
        add_predict_routes(app, self.directory)
        with _frozen_garbage():
            self.directory.ready = True
            yield
            self.directory.ready = False
        self._unload()

    def _load(self) -> None:
        settings = self.settings
        repository = open_repository(settings.models, device=settings.device, default_model=settings.default_model)
        self._fill_directory(repository)
        self._predict_paths.update(self.directory.paths())

    def _fill_directory(self, repository: Repository) -> None:
        for name, model in repository.models.items():
            self.directory.lanes[name] = self._create_lane(model)
        if repository.default is not None:
            self.directory.default = self.directory.lanes[repository.default.name]

    def _create_lane(self, model: ServedModel) -> Lane:
        placement = model.predictor.placement
        self._metrics.announce(model.name, model.version, device=placement.requested, provider=placement.provider)
        endpoint = Endpoint(model)
        return Lane(
            endpoint=endpoint,
            thread=choose_thread(model.name, model.self_check.median_seconds),
            tick=Tick(endpoint.answer_all) if model.batches.largest > 1 else None,
            metrics=self._metrics.for_model(model.name, model.version),
            max_body_bytes=self.settings.max_body_bytes,
            example_answer=endpoint.answer(encode_request(example_request(model))),
        )

    def _unload(self) -> None:
        for lane in self.directory.lanes.values():
            if lane.thread is not None:
                lane.thread.close()


def create_app(settings: Settings) -> App:
    """Create the server. Nothing is opened before its lifespan starts."""
    return App(settings)


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
