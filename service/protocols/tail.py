"""The tail report over HTTP: GET reads it, DELETE begins it anew. Needs no FastAPI, whose import would be its news."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from service.protocols.answer import Answer
from service.protocols.http_errors import answer_status

if TYPE_CHECKING:  # a server that keeps none does not load it
    from service.tail.recorder import Tail

PATH = "/tail-report"
OFF = "no tail report is kept: start the server with --tail-report 32, and it keeps the 32 slowest predictions"


def answer_tail(method: str, path: str, tail: Tail | None) -> Answer | None:
    """Answer what concerns the tail report; None if the request does not."""
    if path != PATH:
        return None
    match method:
        case "GET" | "HEAD":
            return answer_report(tail)
        case "DELETE":
            return answer_forgotten(tail)
        case _:
            return None


def answer_report(tail: Tail | None) -> Answer:
    """Give the report, or say how to get one."""
    if tail is None:
        return answer_status(404, OFF)
    from service.tail.report import write_report

    return Answer(200, msgspec.json.encode(write_report(tail.kept())))


def answer_forgotten(tail: Tail | None) -> Answer:
    """Forget the slowest predictions, and say how many they were."""
    return answer_status(404, OFF) if tail is None else Answer(200, msgspec.json.encode({"forgotten": tail.forget()}))
