"""An answer before it is HTTP: status and body, so that every way of sending it sends the same one."""

from __future__ import annotations

from typing import NamedTuple

JSON = b"application/json"


class Answer(NamedTuple):
    """What a request gets. `reason` is empty for a success, else the error's code, for the metrics.

    `headers` are those beyond content type and length. A tuple, because it is made in a third of a dataclass's time.
    """

    status: int
    body: bytes
    reason: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = JSON

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Give the headers as ASGI takes them."""
        length = b"%d" % len(self.body)
        return [(b"content-type", self.content_type), (b"content-length", length), *self.headers]
