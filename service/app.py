"""The server as one ASGI value: predictions go the short way, everything else goes to FastAPI.

Models are opened and checked in the lifespan. Ready means that the lifespan has come through. FastAPI, which is for
documents and the OpenAPI description, takes longer to import than all the rest together and 20 MB: it is loaded by the
first request that needs it, in a thread, and a server that is only asked for predictions, health and metrics never
does.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import DeviceLost, FoldserveError
from service.gate import Gate
from service.loading import Loader, Loading, watch
from service.management import Manager
from service.metrics import Level, Metrics, Running
from service.open_inference_catalog import OpenInferenceCatalog
from service.protocols.answer import Answer, closing_headers
from service.protocols.bugs import answer_bug
from service.protocols.contract import Contract, Question
from service.protocols.contracts import create_contracts
from service.protocols.descriptions import example_request
from service.protocols.directory import Directory, Served
from service.protocols.dressing import dress
from service.protocols.hot_path import read_headers, send_answer, serve
from service.protocols.http_errors import answer_error
from service.protocols.lane import Journal, Lane
from service.protocols.paths import OWN, Protocols
from service.protocols.predict import encode_request
from service.protocols.probes import answer_metrics, answer_probe
from service.protocols.runner import Runner
from service.protocols.tail import answer_tail
from service.repository import Opening, ServedModel
from service.request_ids import name_request
from service.scheduler import OwnThread, count_of_a_second, measure_inline_limit
from service.settings import Settings
from service.spare_memory import give_back, keep_large_apart
from service.wishes import WishBoard

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from service.tail.recorder import Tail

READING_SECONDS = 0.5  # of a body of some megabytes, with mistakes in it
LEVEL_SECONDS = 1.0
KEY_SECONDS = 1.0
RETIRE_SECONDS = 60.0
MAX_READING = 64  # bodies, of whatever length is allowed
SWITCH_SECONDS = 300e-6


logger = logging.getLogger(__name__)


class App:
    """The ASGI application, and what it knows: `directory` once it has started, `failure` if it could not.

    `rest` answers all that is no prediction, in whatever a server wraps it. Several processes of one server share the
    directory `shared`. `tail` keeps the slowest predictions, if that is wanted.
    """

    def __init__(self, settings: Settings, shared: Path | None = None, *, strict: bool = True) -> None:
        self.settings = settings
        self.directory = Directory()
        self.failure: FoldserveError | None = None
        self.metrics = Metrics(shared)
        self.rest: ASGIApp = dress(self._answer_rest, self.metrics.refusals)
        self.tail = _create_tail(settings)
        self.grpc_port: int | None = None  # where it listens, once it does
        self.journal: Journal | None = None  # whoever runs the app opens it
        self.stop: Callable[[], None] = lambda: None  # whoever runs the app says how it is ended
        self._shared = shared
        self._strict = strict
        self._vertex = settings.vertex()
        self.gate = Gate(settings, self._vertex)
        self._reader = OwnThread(name="read", median_seconds=READING_SECONDS, max_waiting=MAX_READING)
        self._fastapi: ASGIApp | None = None
        self._loading = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        lane = self.directory.lane(scope["path"]) if scope["method"] == "POST" else None
        if lane is not None and self.gate.predicting_is_open:
            await serve(self.directory.lane, lane, scope, receive, send)
            return
        headers, _ = read_headers(scope["headers"])
        refusal = self.gate.refuse(scope["method"], scope["path"], headers, scope["headers"])
        if refusal is not None:
            await self._refuse(answer_error(refusal), headers.request_id, send)
        elif lane is not None:
            await serve(self.directory.lane, lane, scope, receive, send)
        else:
            await self.rest(scope, receive, send)

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
            async with self._tasks(), self._grpc():
                yield
            self.directory.ready = False
        self._unload()

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[None]:
        """Look for new versions, and tell the other processes how many wait here, as long as the server runs."""
        wanted: list[Coroutine[Any, Any, None]] = [_refresh_keys(self.gate)]
        if self.settings.watch_seconds:
            wanted.append(watch(self.loader, self.settings.watch_seconds))
        if self._shared is not None:
            wanted += [_tell_levels(self.metrics), self.manager.follow()]
        tasks = list(map(asyncio.create_task, wanted))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def _grpc(self) -> AsyncIterator[None]:
        """Speak gRPC too, if that is wanted."""
        port = self.settings.grpc_port
        if port is None:
            yield
            return
        from service.grpc_door import open_grpc

        catalog = OpenInferenceCatalog(self.directory, self.metrics, self.manager)
        try:
            server = await open_grpc(self.settings, port, self.directory, self.gate, catalog)
        except FoldserveError as err:
            self.failure = err
            raise
        self.grpc_port = server.port
        try:
            yield
        finally:
            self.directory.ready = False
            await server.stop()

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
                self._fastapi = await asyncio.to_thread(_create_fastapi, self)
        return self._fastapi

    async def _refuse(self, answer: Answer, request_id: bytes, send: Send) -> None:
        arrived = time.perf_counter()
        self.metrics.refusals.record(answer, 0.0)
        await send_answer(answer, send, closing_headers(answer, arrived, name_request(request_id)))

    async def _answer_rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if path == "/metrics" and method in {"GET", "HEAD"}:
            # In a thread: Prometheus' client takes its time, the first time to be imported too.
            await send_answer(await asyncio.to_thread(answer_metrics, self.metrics), send)
            return
        probe = answer_probe(method, path, self.directory, self._vertex.health_route)
        answer = probe or answer_tail(method, path, self.tail)
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
        except asyncio.CancelledError:
            return  # at the second signal nobody waits for the end
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
        loading = Loading(
            models_path=settings.models,
            opening=opening,
            keep=settings.versions,
            default_model=settings.default_model,
            protocols=Protocols(vertex_path=self._vertex.predict_route or None),
        )
        board = WishBoard(self._shared)
        self.loader = Loader(
            loading, self.directory, create=self._create_served, retire=self._retire, wishes=board.read()
        )
        self.manager = Manager(self.loader, board, self.directory)
        await self.loader.start(strict=self._strict)

    async def _create_served(self, model: ServedModel) -> Served:
        """Make what answers for a model: where it runs, who counts, a lane for each protocol."""
        median_seconds = model.self_check.median_seconds
        max_waiting = self.settings.max_queue or count_of_a_second(median_seconds)
        thread = None
        if not model.is_short:
            thread = OwnThread(name=model.name, median_seconds=median_seconds, max_waiting=max_waiting)
        plain = self.metrics.for_model(model.name, model.version)
        runner = Runner(model, thread, max_waiting=max_waiting, count=plain.record_batch, on_lost=self._lose_device)
        recorder = plain if self.tail is None else await self.tail.watch_model(model.name, plain, thread)
        lanes = {
            protocol: Lane(
                protocol=protocol,
                contract=contract,
                runner=runner,
                reader=self._reader,
                metrics=recorder,
                max_body_bytes=self.settings.max_body_bytes,
                journal=self.journal,
            )
            for protocol, contract in create_contracts(model, grpc=self.settings.grpc_port is not None).items()
        }
        answer = await _first_answer(runner, lanes[OWN].contract)
        self.metrics.announce(
            model.name,
            model.version,
            _describe_running(model),
            Level(runner.num_queued, runner.num_in_flight, time.time()),
        )
        return Served(runner, lanes, answer)

    async def _retire(self, served: Served) -> None:
        """Let a version go: what it has begun it finishes."""
        model = served.model
        if served.runner.thread is not None:  # what is still being read or unpacked for it finds it at work
            asyncio.get_running_loop().call_later(RETIRE_SECONDS, served.runner.thread.retire)
        loaded = self.directory.table.models.get(model.name)
        if loaded is None or (model.version or "") not in loaded.versions:
            self.metrics.withdraw(model.name, model.version)
        await asyncio.to_thread(_tidy)

    def _lose_device(self, err: DeviceLost) -> None:
        """End, as nothing but a new process can use the device again; whoever watches this one starts it anew."""
        if self.failure is None:
            self.failure = err
            logger.critical(str(err))
        self.directory.ready = False
        self.stop()

    def _unload(self) -> None:
        self.loader.close()
        self._reader.close()


async def _first_answer(runner: Runner, contract: Contract) -> Answer:
    """Prepare a model where it will run, and give the answer to its own example."""
    question = Question(encode_request(example_request(runner.model)))

    def prepare_and_answer() -> Answer:
        runner.model.batches.prepare()
        return runner.answer(contract, question)

    return prepare_and_answer() if runner.thread is None else await runner.thread.submit(prepare_and_answer)


def _tidy() -> None:
    """Give the memory of what was let go back to the system."""
    gc.collect()
    give_back()


async def _refresh_keys(gate: Gate) -> None:
    """Take in new keys without a restart, and forget those that were revoked."""
    said = gate.warning
    while True:
        if said:
            logger.warning(said)
        await asyncio.sleep(KEY_SECONDS)
        said = gate.refresh()


async def _tell_levels(metrics: Metrics) -> None:
    while True:
        metrics.refresh()
        await asyncio.sleep(LEVEL_SECONDS)


def _describe_running(model: ServedModel) -> Running:
    placement = model.predictor.placement
    return Running(placement.requested, placement.provider, model.batches.num_bytes_since_prepared)


def create_app(settings: Settings, shared: Path | None = None, *, strict: bool = True) -> App:
    """Create the server. Nothing is opened before its lifespan starts.

    `shared` is the directory where several processes of one server put their metrics and wishes together. A process
    that is not `strict` serves what it can: it takes the place of one that did.
    """
    return App(settings, shared, strict=strict)


def _create_tail(settings: Settings) -> Tail | None:
    if not settings.tail_report:
        return None
    from service.tail.recorder import Tail

    return Tail(settings.tail_report, num_processes=settings.workers)


def _create_fastapi(app: App) -> ASGIApp:
    from service.protocols.fastapi_app import create_fastapi

    gc.freeze()  # what was imported stays
    return create_fastapi(app.directory, app.metrics, app.manager, app.tail, wants_keys=app.gate.wants_keys)


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
    keep_large_apart()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
