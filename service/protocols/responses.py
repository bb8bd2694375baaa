"""Answers as Starlette's responses, for FastAPI's routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import Request, Response

from service.errors import ModelUnknown
from service.protocols.answer import Answer
from service.protocols.hot_path import Posted, read_headers, respond
from service.protocols.http_errors import answer_error
from service.protocols.lane import Lane


def to_response(answer: Answer) -> Response:
    """Turn an answer into Starlette's response."""
    response = Response(answer.body, status_code=answer.status)
    response.raw_headers = answer.all_headers()
    return response


def to_json(value: Any) -> Response:
    """Write a value as JSON."""
    return to_response(Answer(200, msgspec.json.encode(value)))


async def answer_posted(find: Callable[[], Lane], request: Request) -> Response:
    """Ask a lane what was posted; or say why a path that would predict does not: what it means is not loaded.

    Raises:
        ClientGone: the connection was closed before there was an answer.
    """
    headers, content_length = read_headers(request.scope["headers"])
    posted = Posted(headers, content_length, request.scope["query_string"])
    try:
        answer = (await respond(find, posted, request.receive)).answer
    except ModelUnknown as err:
        answer = answer_error(err)
    return to_response(answer)
