"""An answer as Starlette's response, for FastAPI's routes."""

from __future__ import annotations

from fastapi import Response

from service.protocols.answer import Answer


def to_response(answer: Answer) -> Response:
    """Turn an answer into Starlette's response."""
    response = Response(answer.body, status_code=answer.status)
    response.raw_headers = answer.all_headers()
    return response
