"""Carries predictions over ASGI with nothing in between: one body in, one answer out.

It stands in front of FastAPI, which keeps everything else. Its rules are the same on FastAPI's own routes, which call
`respond` too: a body limit that holds while the body still comes in, answers that are always JSON, and no work for a
client who has gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from service.errors import BodyTooLarge, FoldserveError
from service.metrics import ModelMetrics
from service.protocols.answer import Answer
from service.protocols.http_errors import answer_error, answer_status
from service.protocols.predict import Endpoint
from service.scheduler import OwnThread, Tick

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Lane:
    """What a request for one model needs: who answers, where it runs, who counts, how long a body may be.

    A long model has a `thread`, a short one that may be run in batches a `tick`, and any other neither.
    `example_answer` is what the model answered to its own example at start.
    """

    endpoint: Endpoint
    thread: OwnThread | None
    tick: Tick[bytes, Answer] | None
    metrics: ModelMetrics
    max_body_bytes: int
    example_answer: Answer


class ClientGone(Exception):
    """The client has closed the connection: there is nobody to answer."""


async def serve(lane: Lane, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one prediction request."""
    try:
        answer = await respond(lane, scope, receive)
    except ClientGone:
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.all_headers()})
    await send({"type": "http.response.body", "body": answer.body})


async def respond(lane: Lane, scope: Scope, receive: Receive) -> Answer:
    """Read a request's body, compute its answer and count it.

    Raises:
        ClientGone: the connection was closed before there was an answer.
    """
    content_type, content_encoding, content_length = _read_headers(scope)
    start = time.perf_counter()
    try:
        body = await _read_body(receive, content_length, lane.max_body_bytes)
        start = time.perf_counter()
        if lane.tick is not None:
            answer = await lane.tick.submit(lane.endpoint.read(body, content_type, content_encoding))
        elif lane.thread is None:
            answer = lane.endpoint.answer(body, content_type, content_encoding)
        else:
            call = lane.thread.submit(lane.endpoint.answer, body, content_type, content_encoding)
            answer = await _await_unless_gone(call, receive)
    except FoldserveError as err:
        answer = answer_error(err)
    except Exception as err:
        if isinstance(err, ClientGone):
            raise
        logger.exception("a bug in foldserve: this request could not be answered")
        answer = answer_status(500, "the server failed on this request; its log says why")
    lane.metrics.record(answer.status, answer.reason, time.perf_counter() - start)
    return answer


def _read_headers(scope: Scope) -> tuple[bytes, bytes, int]:
    content_type = content_encoding = b""
    content_length = 0
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length":
            content_length = int(value)  # the HTTP parser lets only digits pass
        elif name == b"content-encoding":
            content_encoding = value
    return content_type, content_encoding, content_length


async def _read_body(receive: Receive, content_length: int, max_body_bytes: int) -> bytes:
    if content_length > max_body_bytes:
        raise _too_large(f"{content_length} bytes", max_body_bytes)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        body = await _read_rest(receive, body, max_body_bytes)
    if len(body) > max_body_bytes:
        raise _too_large("more", max_body_bytes)
    return body


async def _read_rest(receive: Receive, first: bytes, max_body_bytes: int) -> bytes:
    body = bytearray(first)
    more = True
    while more:
        if len(body) > max_body_bytes:
            raise _too_large("more", max_body_bytes)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def _too_large(got: str, max_body_bytes: int) -> BodyTooLarge:
    expected = f"at most {max_body_bytes} bytes"
    return BodyTooLarge(f"the body is too large: expected {expected}, got {got}", expected=expected, got=got)


async def _await_unless_gone(call: asyncio.Future[Answer], receive: Receive) -> Answer:
    """Wait for the answer and for the client's leaving; a call that has not begun when it leaves never will."""
    gone = asyncio.ensure_future(receive())
    waited: set[asyncio.Future[Any]] = {call, gone}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if not call.done():
        call.cancel()
        raise ClientGone
    gone.cancel()
    return call.result()
