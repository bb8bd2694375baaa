"""Answers as bytes on the wire, each one write: the very bytes that uvicorn would send for the same answer."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from service.protocols.answer import JSON, Answer

CLOSE_HEADER = (b"connection", b"close")
CLOSE = b"connection: close\r\n"


class AnswerWriter:
    """Writes the answers of one server, whose headers (the date) change once a second."""

    def __init__(self, server_state: ServerState) -> None:
        self._server_state = server_state
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._success = b""

    def write(self, answer: Answer, arrived: float, request_id: bytes, *, close: bool = False) -> bytes:
        """Give the bytes of an answer; with `close`, the connection is not to be used again."""
        if self._server_state.default_headers is not self._headers:
            self._prepare()
        status, body, _, headers, content_type, _ = answer
        timing = answer.server_timing(arrived)
        if status == 200 and not headers and not close and content_type is JSON:
            length = len(body)
            return b"%b%d\r\nserver-timing: %b\r\nx-request-id: %b\r\n\r\n%b" % (
                self._success,
                length,
                timing,
                request_id,
                body,
            )
        ours = [*answer.all_headers(), (b"server-timing", timing), (b"x-request-id", request_id)]
        lines = b"".join(_line(*header) for header in (*self._server_state.default_headers, *ours))
        last = CLOSE if close and b"connection: close" not in lines else b""
        return STATUS_LINE[status] + lines + last + b"\r\n" + body

    def closes(self) -> bool:
        """Say if the server's headers themselves say that connections are not to be used again."""
        return CLOSE_HEADER in self._server_state.default_headers

    def _prepare(self) -> None:
        """Write what all successes have in common, up to the length of their body."""
        self._headers = self._server_state.default_headers
        lines = b"".join(_line(*header) for header in (*self._headers, *Answer(200, b"").all_headers()))
        self._success = STATUS_LINE[200] + lines.removesuffix(b"0\r\n")


def _line(name: bytes, value: bytes) -> bytes:
    return name + b": " + value + b"\r\n"
