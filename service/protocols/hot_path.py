"""Carries predictions over ASGI with nothing in between: one body in, one answer out.

It stands in front of FastAPI, which keeps everything else: a body limit that holds while the body still comes in,
answers in the protocol's own form, and no work for a client who has gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from service.errors import FoldserveError
from service.protocols.answer import Answer, closing_headers
from service.protocols.contract import Headers, Question
from service.protocols.lane import Lane, too_large
from service.protocols.runner import Withdraw, nothing_to_withdraw
from service.request_ids import name_request

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


FIELDS = {
    b"content-type": "content_type",
    b"content-encoding": "content_encoding",
    b"inference-header-content-length": "header_length",
    b"x-request-timeout": "timeout",
    b"x-request-id": "request_id",
    b"traceparent": "traceparent",
    b"authorization": "authorization",
    b"x-api-key": "api_key",
    b"accept": "accept",
}


Find = Callable[[str], Lane | None]
# Of any body, where curl is told nothing; TensorFlow Serving's own examples post JSON so. It counts as nothing said.
SAID_BY_CURL = b"application/x-www-form-urlencoded"


class ClientGone(Exception):
    """The client has closed the connection: there is nobody to answer."""


async def serve(find: Find, lane: Lane, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one prediction request, by the lane that stands at its path once its body is there: versions change."""
    arrived = time.perf_counter()
    headers, content_length = read_headers(scope["headers"])
    try:
        posted = Posted(headers, content_length, scope["query_string"])
        answered = await respond(lambda: find(scope["path"]) or lane, posted, receive)
    except ClientGone:
        return
    answer, arrived, request_id = answered.answer, answered.arrived, name_request(headers.request_id)
    answered.lane.count(answer, arrived, headers, request_id)
    await send_answer(answer, send, closing_headers(answer, arrived, request_id))


async def send_answer(answer: Answer, send: Send, more_headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Send an answer over ASGI."""
    headers = [*answer.all_headers(), *more_headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


class Posted(NamedTuple):
    """What is known of a request before its body is there."""

    headers: Headers
    content_length: int
    query: bytes


class Answered(NamedTuple):
    """An answer, the lane that gave it, and when the request was here whole."""

    answer: Answer
    lane: Lane
    arrived: float


async def respond(find: Callable[[], Lane], posted: Posted, receive: Receive) -> Answered:
    """Read a request's body and compute its answer, by the lane that `find` gives once the body is there.

    Raises:
        ClientGone: the connection was closed before there was an answer.
    """
    try:
        body = await _read_body(receive, posted.content_length, find().max_body_bytes)
    except FoldserveError as err:
        lane = find()
        return Answered(lane.refuse(err), lane, time.perf_counter())
    lane, arrived = find(), time.perf_counter()
    question = Question(body, posted.headers, posted.query)
    return Answered(await _ask(lane, question, receive, arrived), lane, arrived)


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Headers, int]:
    """Give the headers that matter here, and the content length; of headers with names in lower case."""
    found: dict[str, bytes] = {}
    content_length = 0
    for name, value in headers:
        if name in FIELDS:
            found[FIELDS[name]] = value.strip(b" \t")
        elif name == b"content-length":
            content_length = int(value)  # the HTTP parser lets only digits pass
    if found.get("content_type", b"").startswith(SAID_BY_CURL):
        del found["content_type"]
    return Headers(**found), content_length


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


async def _ask(lane: Lane, question: Question, receive: Receive, arrived: float) -> Answer:
    delivered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    asked = lane.ask(question, lambda answer: _deliver(delivered, answer), arrived)
    if isinstance(asked, Answer):
        return asked
    if asked is nothing_to_withdraw:
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
