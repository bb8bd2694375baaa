"""What every answer of the slow way gets, whoever made it: a name, how long it took, and what browsers have to know."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from service.metrics import ModelMetrics
from service.protocols.answer import Answer
from service.protocols.hot_path import read_headers
from service.protocols.http_errors import code_of_status
from service.request_ids import name_request
from service.security_headers import security_headers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


def dress(app: ASGIApp, refusals: ModelMetrics) -> ASGIApp:
    """Wrap an application: its answers get their last headers, and its refusals are counted."""

    async def dressed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        arrived = time.perf_counter()
        request_id = name_request(read_headers(scope["headers"])[0].request_id)

        held: list[Message] = []  # the beginning, until the first part of the body is there

        async def send_dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                held.append(message)
                return
            if held:
                start = held.pop()
                seconds = time.perf_counter() - arrived
                if start["status"] >= 400:
                    refusals.record(Answer(start["status"], b"", code_of_status(start["status"])), seconds)
                await send({**start, "headers": _complete(start, message.get("body", b""), seconds, request_id)})
            await send(message)

        await app(scope, receive, send_dressed)

    return dressed


def _complete(start: Message, body: bytes, seconds: float, request_id: bytes) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = list(start.get("headers", ()))
    names = {name for name, _ in headers}
    content_type = next((value for name, value in headers if name == b"content-type"), b"")
    ours = [header for header in security_headers(content_type, body) if header[0] not in names]
    return [*headers, *ours, (b"server-timing", b"total;dur=%.3f" % (seconds * 1e3)), (b"x-request-id", request_id)]
