"""An answer before it is HTTP: status and body, so that every way of sending it sends the same one."""

from __future__ import annotations

import time
from typing import NamedTuple

JSON = b"application/json"
STAGES = ("parse", "queue", "infer", "encode")  # of a request that comes to a model, in this order
STAGE_TIMING = b", ".join(stage.encode() + b";dur=%.3f" for stage in STAGES)
NO_SNIFFING = (b"x-content-type-options", b"nosniff")  # what a client sent is quoted in errors: it is no page


class Times(NamedTuple):
    """When what was done for an answer, by `time.perf_counter`.

    The request was read, the model started on it, the outputs were there, the answer was written.
    """

    read: float
    started: float
    computed: float
    written: float


class Answer(NamedTuple):
    """What a request gets. `reason` is empty for a success, else the error's code, for the metrics.

    `headers` are those beyond content type and length; `times` are None if the model was not asked. A tuple, because
    it is made in a third of a dataclass's time.
    """

    status: int
    body: bytes
    reason: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = JSON
    times: Times | None = None

    def at(self, times: Times) -> Answer:
        """Give the same answer, with its times."""
        return Answer(self.status, self.body, self.reason, self.headers, self.content_type, times)

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Give the headers as ASGI takes them."""
        length = b"%d" % len(self.body)
        return [(b"content-type", self.content_type), NO_SNIFFING, (b"content-length", length), *self.headers]

    def server_timing(self, arrived: float) -> bytes:
        """Say in milliseconds how long each stage took, for the Server-Timing header (W3C)."""
        times = self.times
        if times is None:
            return b"total;dur=%.3f" % ((time.perf_counter() - arrived) * 1e3)
        read, started, computed, written = times
        return STAGE_TIMING % (
            (read - arrived) * 1e3,
            (started - read) * 1e3,
            (computed - started) * 1e3,
            (written - computed) * 1e3,
        )


def closing_headers(answer: Answer, arrived: float, request_id: bytes) -> list[tuple[bytes, bytes]]:
    """Give the headers that every answer ends with: how long it took, and by which name the log knows it."""
    return [(b"server-timing", answer.server_timing(arrived)), (b"x-request-id", request_id)]
