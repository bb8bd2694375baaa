"""The one table from error to HTTP status, and the one form that every refusal has.

    {"error": "instance[3]: expected a number, got null", "code": "instance_invalid",
     "field": "instance[3]", "expected": "a number", "got": "null"}

`error` and `code` are always there, the others where they say something. Never a stack trace, never the whole input.
"""

from __future__ import annotations

import http
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from service.errors import (
    BodyMalformed,
    BodyTooLarge,
    DeadlineExceeded,
    DeviceLost,
    DeviceOutOfMemory,
    FoldserveError,
    InstanceInvalid,
    KeyMissing,
    MediaTypeUnsupported,
    ModelUnknown,
    NotPermitted,
    NotReady,
    Overloaded,
    PathUnknown,
    PredictionFailed,
    RequestError,
    RequestInvalid,
    code_of,
)
from service.protocols.answer import Answer

STATUS: dict[type[FoldserveError], int] = {
    BodyMalformed: 400,
    RequestInvalid: 400,
    KeyMissing: 401,
    NotPermitted: 403,
    ModelUnknown: 404,
    PathUnknown: 404,
    BodyTooLarge: 413,
    MediaTypeUnsupported: 415,
    InstanceInvalid: 422,
    Overloaded: 429,
    PredictionFailed: 500,
    DeviceLost: 503,
    NotReady: 503,
    DeadlineExceeded: 504,
    DeviceOutOfMemory: 507,
}
# In all protocols but our own, a request whose tensors do not fit the model is malformed like any other.
STATUS_ELSEWHERE = {**STATUS, InstanceInvalid: 400}


def answer_error(error: FoldserveError, statuses: Mapping[type[FoldserveError], int] = STATUS) -> Answer:
    """Turn an error into its answer."""
    status = statuses.get(type(error), 500)
    code = code_of(type(error))
    return Answer(status, _encode(str(error), code, _details(error)), code, _headers(error))


def answer_status(status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    """Answer with a status that no error of ours stands for, such as 405."""
    code = code_of_status(status)
    return Answer(status, _encode(message, code, {}), code, headers)


def code_of_status(status: int) -> str:
    """Give the code of a status that no error of ours stands for: 405 is `method_not_allowed`."""
    return re.sub(r"\W+", "_", http.HTTPStatus(status).phrase.lower())


def _details(error: FoldserveError) -> dict[str, str]:
    if not isinstance(error, RequestError):
        return {}
    details = {"field": error.field, "expected": error.expected, "got": error.got}
    return {key: value for key, value in details.items() if value}


def _headers(error: FoldserveError) -> tuple[tuple[bytes, bytes], ...]:
    match error:
        case KeyMissing():
            return ((b"www-authenticate", b"Bearer"),)
        case NotReady() | DeviceLost():
            return ((b"retry-after", b"1"),)
        case Overloaded():
            return ((b"retry-after", str(error.retry_after_seconds).encode()),)
        case BodyTooLarge():
            # What is left of the body is never read, so the connection can not be used again.
            return ((b"connection", b"close"),)
        case _:
            return ()


def _encode(message: str, code: str, details: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"error": message, "code": code, **details})
