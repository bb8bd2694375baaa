"""The tail report's routes as FastAPI knows them, so that /docs shows them; the answers are made in `tail.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response

from service.protocols.responses import to_response
from service.protocols.tail import PATH, answer_forgotten, answer_report

if TYPE_CHECKING:
    from service.tail.recorder import Tail

RESPONSES: dict[int | str, dict[str, Any]] = {404: {"description": "The server was started without --tail-report"}}


def add_tail_routes(app: FastAPI, tail: Tail | None) -> None:
    """Declare the routes; without a tail they say how to get one."""

    @app.head(PATH, include_in_schema=False)
    @app.get(PATH, summary="The slowest predictions, and why they were slow", responses=RESPONSES)
    async def read_tail_report() -> Response:
        return to_response(answer_report(tail))

    @app.delete(PATH, summary="Forget the slowest predictions, and begin anew", responses=RESPONSES)
    async def forget_tail_report() -> Response:
        return to_response(answer_forgotten(tail))
