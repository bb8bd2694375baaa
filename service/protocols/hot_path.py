"""Carries predictions over ASGI with nothing in between: one body in, one answer out.

It stands in front of FastAPI, which keeps everything else. Its rules are the same on FastAPI's own routes, which call
`respond` too: a body limit that holds while the body still comes in, answers that are always JSON, and no work for a
client who has gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from service.errors import FoldserveError
from service.protocols.answer import Answer
from service.protocols.http_errors import answer_error
from service.protocols.lane import Lane, Question, Withdraw, too_large

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class ClientGone(Exception):
    """The client has closed the connection: there is nobody to answer."""


async def serve(lane: Lane, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one prediction request."""
    try:
        answer = await respond(lane, scope, receive)
    except ClientGone:
        return
    await send_answer(answer, send)


async def send_answer(answer: Answer, send: Send) -> None:
    """Send an answer over ASGI."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.all_headers()})
    await send({"type": "http.response.body", "body": answer.body})


async def respond(lane: Lane, scope: Scope, receive: Receive) -> Answer:
    """Read a request's body, compute its answer and count it.

    Raises:
        ClientGone: the connection was closed before there was an answer.
    """
    content_type, content_encoding, content_length = read_headers(scope["headers"])
    arrived = time.perf_counter()
    try:
        body = await _read_body(receive, content_length, lane.max_body_bytes)
    except FoldserveError as err:
        answer = answer_error(err)
    else:
        arrived = time.perf_counter()
        answer = await _ask(lane, Question(body, content_type, content_encoding), receive)
    lane.count(answer, arrived)
    return answer


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes, int]:
    """Give content type, content encoding and content length, of headers with names in lower case."""
    content_type = content_encoding = b""
    content_length = 0
    for name, value in headers:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length":
            content_length = int(value)  # the HTTP parser lets only digits pass
        elif name == b"content-encoding":
            content_encoding = value
    return content_type, content_encoding, content_length


async def _read_body(receive: Receive, content_length: int, max_body_bytes: int) -> bytes:
    if content_length > max_body_bytes:
        raise too_large(f"{content_length} bytes", max_body_bytes)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        body = await _read_rest(receive, body, max_body_bytes)
    if len(body) > max_body_bytes:
        raise too_large("more", max_body_bytes)
    return body


async def _read_rest(receive: Receive, first: bytes, max_body_bytes: int) -> bytes:
    body = bytearray(first)
    more = True
    while more:
        if len(body) > max_body_bytes:
            raise too_large("more", max_body_bytes)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


async def _ask(lane: Lane, question: Question, receive: Receive) -> Answer:
    delivered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    asked = lane.ask(question, lambda answer: _deliver(delivered, answer))
    if isinstance(asked, Answer):
        return asked
    if lane.thread is None:
        return await delivered
    return await _unless_gone(delivered, receive, asked)


def _deliver(delivered: asyncio.Future[Answer], answer: Answer) -> None:
    if not delivered.done():
        delivered.set_result(answer)


async def _unless_gone(delivered: asyncio.Future[Answer], receive: Receive, withdraw: Withdraw) -> Answer:
    """Wait for the answer and for the client's leaving; a call that has not begun when it leaves never will."""
    gone = asyncio.ensure_future(receive())
    waited: set[asyncio.Future[Any]] = {delivered, gone}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if not delivered.done():
        withdraw()
        raise ClientGone
    gone.cancel()
    return delivered.result()
