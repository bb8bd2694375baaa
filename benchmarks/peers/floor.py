"""The floor: an ASGI app that reads the same body and answers as many bytes, and does nothing in between.

No ASGI app behind uvicorn can be faster. `python -m benchmarks.peers.floor <bytes of an answer> <port> <parser>`, where
the parser is uvicorn's `http` setting: httptools, which the service uses too, or the newer zttp.
"""

from __future__ import annotations

import sys

from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.peers.host import host


def create_app(answer_bytes: int) -> ASGIApp:
    """An app whose every answer is the same JSON string, `answer_bytes` long with its quotes."""
    body = b'"' + b"0" * (answer_bytes - 2) + b'"'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


if __name__ == "__main__":
    _, bytes_of_answer, port, parser = sys.argv
    host(create_app(int(bytes_of_answer)), int(port), parser)
