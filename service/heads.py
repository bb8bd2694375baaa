"""The head of a request that only posts a body, read once: the same bytes need no second reading.

A client sends the same head over and over, so what HTTP's parser said of it the first time is kept. Only the simplest
kind of request is understood here: POST to a plain path over HTTP/1.1, its length announced, the connection kept open.
Whatever else there is (chunks, `Expect`, upgrades, queries, HTTP/1.0, mistakes) is left to the server's usual way.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

import httptools

from service.protocols.contract import Headers
from service.protocols.hot_path import read_headers

END = b"\r\n\r\n"
MAX_BYTES = 2048
MAX_KEPT = 2048
UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)
OF_UPGRADES = frozenset({b"upgrade", b"http2-settings", b"connection"})
NOT_PLAIN = frozenset({b"expect", b"transfer-encoding", b"upgrade"})


class Head(NamedTuple):
    """What a prediction needs to know of its request, the path as ASGI gives it."""

    path: str
    content_length: int
    headers: Headers


@lru_cache(maxsize=MAX_KEPT)
def read_head(head: bytes) -> Head | None:
    """Read a head, from its first byte to the blank line; None if it is not of the simplest kind."""
    seen = _Seen()
    seen.parser = parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    if not _is_plain(seen, parser):
        return None
    headers, content_length = read_headers(seen.headers)
    return Head(seen.url.decode("ascii"), content_length, headers)


class _Seen:
    """What the parser has called back: `complete` if the head ended, `more` if something stood behind its end."""

    def __init__(self) -> None:
        self.parser: Any = None
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.keep_alive = False
        self.more = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True
        self.keep_alive = self.parser.should_keep_alive()  # of a message without a body it forgets that at once

    def on_body(self, _: bytes) -> None:
        self.more = True


def _is_plain(seen: _Seen, parser: Any) -> bool:
    names = {name for name, _ in seen.headers}
    return (
        seen.complete
        and not seen.more
        and parser.get_method() == b"POST"
        and parser.get_http_version() == "1.1"
        and seen.keep_alive
        and b"content-length" in names
        and not names & NOT_PLAIN
        and seen.url.startswith(b"/")
        and seen.url.isascii()
        and not set(seen.url) & set(b"%?#")
    )


def leave_upgrades_out(data: bytes, start: int) -> bytes:
    """Give the request that begins at `start` without its wish for another protocol, which nobody has to follow.

    Java's client asks for HTTP/2 with its first request (RFC 9110, section 7.8). The parser would take what follows the
    head for that protocol, and the request's own body would be lost.
    """
    stop = data.find(END, start)
    if stop < 0 or UPGRADE.search(data, start, stop) is None:
        return data[start:]
    lines = data[start:stop].split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() not in OF_UPGRADES]
    return b"\r\n".join(kept) + data[stop:]
