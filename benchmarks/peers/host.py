"""uvicorn for the peers, with the service's own settings: what differs between them is the application alone."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    """Says where it listens, in the service's words, once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        for listener in sockets or ():
            print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)


def host(app: Any) -> None:
    """Serve `app` on a free port until SIGTERM."""
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
    )
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        _Server(config).run(sockets=[listener])
