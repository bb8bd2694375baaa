"""From our answers to gRPC's: the one table from HTTP's status to gRPC's code, and what a client is told beside it."""

from __future__ import annotations

import msgspec
from grpc import StatusCode

from service.protocols.answer import Answer

CODE: dict[int, StatusCode] = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    409: StatusCode.ABORTED,
    413: StatusCode.RESOURCE_EXHAUSTED,  # as gRPC itself says of a message that is too long
    415: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    500: StatusCode.INTERNAL,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
    507: StatusCode.RESOURCE_EXHAUSTED,
}
RETRY_AFTER = b"retry-after"
# Names and values that go with an answer, behind it.
Trailer = tuple[tuple[str, str], ...]


def code_of_answer(answer: Answer) -> StatusCode:
    """Give the code of an answer that is a refusal."""
    return CODE.get(answer.status, StatusCode.UNKNOWN)


def explain(answer: Answer) -> str:
    """Give a refusal's sentence."""
    return str(msgspec.json.decode(answer.body)["error"])


def write_trailer(answer: Answer, arrived: float, request_id: bytes) -> Trailer:
    """Say how long it took, by which name the log knows it, and of a refusal why, and when to ask again."""
    timing = answer.server_timing(arrived).decode()
    trailer = [("server-timing", timing), ("x-request-id", request_id.decode("latin-1"))]
    if answer.reason:
        trailer.append(("error-code", answer.reason))
    trailer.extend((RETRY_AFTER.decode(), value.decode()) for name, value in answer.headers if name == RETRY_AFTER)
    return tuple(trailer)
