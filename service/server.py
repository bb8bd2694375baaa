"""One process that serves: uvicorn around our app, with our words at its start and a readiness that turns red first."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.announcement import announce, warn_of_devices, warn_of_failures
from service.answers import CLOSE_HEADER
from service.app import App, create_app
from service.complaints import complain, say
from service.connection import Limits, connections
from service.errors import SettingsInvalid
from service.request_journal import open_journal
from service.settings import Settings

EXIT_FAILURE = 1
KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of the usual load balancers: they close first, and lose no request
SHUTDOWN_SECONDS = 30
DRAIN_STEP_SECONDS = 0.1
SAME_SIGNAL_SECONDS = 0.3


def serve(
    settings: Settings, listener: socket.socket, on_ready: Callable[[], None] | None, *, shared: Path | None = None
) -> int:
    """Serve in this process, on a bound socket, until SIGTERM or SIGINT; return the exit code.

    Of several processes only the first has something to do when it is ready: the others start without a word. They
    put their metrics and wishes together in the directory `shared`.
    """
    try:
        app = create_app(settings, shared, strict=on_ready is not None)
        with open_journal(settings) as journal:
            app.journal = journal
            app.metrics.num_lines_lost = lambda: journal.num_lines_lost
            app.metrics.num_spans_lost = lambda: journal.num_spans_lost
            return _run(app, listener, on_ready)
    except SettingsInvalid as err:
        complain(str(err))
        return EXIT_FAILURE


def _run(app: App, listener: socket.socket, on_ready: Callable[[], None] | None) -> int:
    _leave_start_failures_to_us(app)
    server = _Server(app, on_started=lambda: _tell(app, _url(listener), on_ready))
    # uvicorn raises the signal again when it has shut down: by then it has had its effect.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        return 0
    except SystemExit:
        complain(str(app.failure or "the server could not start"))
        return EXIT_FAILURE
    return 0 if app.failure is None else EXIT_FAILURE


class _Server(uvicorn.Server):
    """uvicorn, with our words at its start, and red readiness before it stops listening."""

    def __init__(self, app: App, *, on_started: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            interface="asgi3",
            http=_choose_protocol(app),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        super().__init__(config)
        # What a proxy says of the client matters to redirects only: a prediction need not wait for it to be read.
        app.rest = ProxyHeadersMiddleware(app.rest, config.forwarded_allow_ips)  # type: ignore[arg-type, assignment]
        app.stop = self._stop
        self._app = app
        self._on_started = on_started
        self._told_at = 0.0  # to end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load and listen, then say so."""
        await super().startup(sockets=sockets)
        if self.started and not self.should_exit:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that no more requests are wanted, go on answering for a while, then finish.

        Each answer says that its connection is not to be used again, so that clients leave before they are left.
        """
        self._app.directory.ready = False
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE_HEADER]
        await self._drain(self._app.settings.drain_seconds)
        await super().shutdown(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down; at the second signal, whichever it is, do so without waiting.

        What follows at once is the same one: it was sent to all processes, and the parent passes it on to us.
        """
        now = time.monotonic()
        if not self.should_exit:
            self._told_at = now
            super().handle_exit(sig, frame)
        elif now - self._told_at > SAME_SIGNAL_SECONDS:
            self.force_exit = True

    def _stop(self) -> None:
        """End as soon as may be: the app can not go on."""
        self.should_exit = True

    async def _drain(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.force_exit:  # noqa: ASYNC110 - a signal sets it
            await asyncio.sleep(min(DRAIN_STEP_SECONDS, seconds))


def _choose_protocol(app: App) -> Any:
    """What uvicorn makes for each connection: its protocol with ours on top, which takes predictions or leaves them."""
    settings = app.settings
    limits = Limits(
        header_seconds=settings.header_seconds,
        receive_seconds=settings.receive_seconds,
        write_seconds=settings.write_seconds,
        max_connections=settings.max_connections,
    )
    find = app.directory.lane if settings.http == "fast" else lambda _: None
    return connections(find, app.gate, limits=limits, spin_seconds=settings.spin_microseconds * 1e-6)


def _tell(app: App, url: str, on_ready: Callable[[], None] | None) -> None:
    if on_ready is None:
        return
    grpc = f"{url.removeprefix('http://').rpartition(':')[0]}:{app.grpc_port}" if app.grpc_port else ""
    for line in announce(app.directory, url, grpc):
        say(line)
    for line in (*warn_of_devices(app.directory), *warn_of_failures(app.directory)):
        complain(line)
    on_ready()


def _leave_start_failures_to_us(app: App) -> None:
    """Keep uvicorn from writing a stack trace where `serve` writes one plain line."""
    logging.getLogger("uvicorn.error").addFilter(lambda _: app.failure is None)


def _url(listener: socket.socket) -> str:
    """An address to paste: one that stands for every address of the machine is no place to send to."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
