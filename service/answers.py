"""Answers as bytes on the wire, each one write: the very bytes that uvicorn would send for the same answer."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from service.protocols.answer import STAGE_TIMING, Answer

CLOSE_HEADER = (b"connection", b"close")
# All of a success behind what its content type begins with, in one go, with what `Answer.server_timing` writes.
SUCCESS = b"%b%d\r\n%bserver-timing: " + STAGE_TIMING + b"\r\nx-request-id: %b\r\n\r\n%b"
CLOSE = b"connection: close\r\n"


class AnswerWriter:
    """Writes the answers of one server, whose headers (the date) change once a second."""

    def __init__(self, server_state: ServerState) -> None:
        self._server_state = server_state
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._successes: dict[bytes, bytes] = {}  # by content type, since the headers changed

    def write(self, answer: Answer, arrived: float, request_id: bytes, *, close: bool = False) -> bytes:
        """Give the bytes of an answer; with `close`, the connection is not to be used again."""
        if self._server_state.default_headers is not self._headers:
            self._headers, self._successes = self._server_state.default_headers, {}
        status, body, _, headers, content_type, times = answer
        if status == 200 and not close and times is not None:
            success = self._successes.get(content_type) or self._begin(content_type)
            more = b"" if not headers else b"".join([_line(*header) for header in headers])
            read, started, computed, written = times
            return SUCCESS % (
                success,
                len(body),
                more,
                (read - arrived) * 1e3,
                (started - read) * 1e3,
                (computed - started) * 1e3,
                (written - computed) * 1e3,
                request_id,
                body,
            )
        timing = answer.server_timing(arrived)
        ours = [*answer.all_headers(), (b"server-timing", timing), (b"x-request-id", request_id)]
        lines = b"".join(_line(*header) for header in (*self._server_state.default_headers, *ours))
        last = CLOSE if close and b"connection: close" not in lines else b""
        return STATUS_LINE[status] + lines + last + b"\r\n" + body

    def closes(self) -> bool:
        """Say if the server's headers themselves say that connections are not to be used again."""
        return CLOSE_HEADER in self._server_state.default_headers

    def _begin(self, content_type: bytes) -> bytes:
        """Write what all successes of a content type have in common, up to the length of their body."""
        headers = (*self._server_state.default_headers, *Answer(200, b"", content_type=content_type).all_headers())
        begun = STATUS_LINE[200] + b"".join(_line(*header) for header in headers).removesuffix(b"0\r\n")
        self._successes[content_type] = begun
        return begun


def _line(name: bytes, value: bytes) -> bytes:
    return name + b": " + value + b"\r\n"
