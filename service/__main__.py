"""The command line: `python -m service --models models` checks what there is, says so, and serves until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence

import uvicorn

from service.announcement import announce, warn_of_devices
from service.app import App, create_app
from service.errors import SettingsInvalid
from service.settings import Settings, read_settings, shared_metrics_directory
from service.workers import Workers

EXIT_FAILURE = 1
EXIT_USAGE = 2
KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of the usual load balancers: they close first, and lose no request
SHUTDOWN_SECONDS = 30


def main(arguments: Sequence[str]) -> int:
    """Serve; return the exit code."""
    try:
        settings = read_settings(arguments)
    except SettingsInvalid as err:
        return _fail(str(err), EXIT_USAGE)
    try:
        listener = _bind(settings)
    except OSError as err:
        return _fail(f"can not listen on {settings.host}, port {settings.port}: {err.strerror}", EXIT_FAILURE)
    if settings.workers == 1:
        return serve(settings, listener, lambda: None)
    with shared_metrics_directory():
        return Workers(serve, settings, listener).run()


def serve(settings: Settings, listener: socket.socket, on_ready: Callable[[], None] | None) -> int:
    """Serve in this process, on a bound socket, until SIGTERM or SIGINT; return the exit code.

    Of several processes only the first has something to do when it is ready: the others start without a word.
    """
    app = create_app(settings)
    _leave_start_failures_to_us(app)
    server = _Server(app, on_started=lambda: _tell(app, _url(listener), on_ready))
    # uvicorn raises the signal again when it has shut down: by then it has had its effect.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        return 0
    except SystemExit:
        return _fail(str(app.failure or "the server could not start"), EXIT_FAILURE)
    return 0


class _Server(uvicorn.Server):
    """uvicorn, with our words at its start, and red readiness before it stops listening."""

    def __init__(self, app: App, *, on_started: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        self._app = app
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load and listen, then say so."""
        await super().startup(sockets=sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that no more requests are wanted, go on answering for a while, then finish."""
        self._app.directory.ready = False
        await asyncio.sleep(self._app.settings.drain_seconds)
        await super().shutdown(sockets=sockets)


def _tell(app: App, url: str, on_ready: Callable[[], None] | None) -> None:
    if on_ready is None:
        return
    for line in announce(app.directory, url):
        _say(line)
    for line in warn_of_devices(app.directory):
        _complain(line)
    on_ready()


def _leave_start_failures_to_us(app: App) -> None:
    """Keep uvicorn from writing a stack trace where `serve` writes one plain line."""
    logging.getLogger("uvicorn.error").addFilter(lambda _: app.failure is None)


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _complain(line: str) -> None:
    sys.stderr.write(f"foldserve: {' '.join(line.split())}\n")
    sys.stderr.flush()


def _fail(message: str, code: int) -> int:
    _complain(message)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
