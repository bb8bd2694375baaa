"""uvicorn for the floor and the tutorial, with the service's own settings: what differs is the application alone."""

from __future__ import annotations

from typing import Any

import uvicorn


def host(app: Any, port: int, parser: str = "httptools") -> None:
    """Serve `app` until SIGTERM."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        http=parser,
        loop="uvloop",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
    )
