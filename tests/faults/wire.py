"""Raw sockets, for what no client library would send: pieces, pauses, half requests, answers that nobody reads."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

PATIENCE_SECONDS = 20.0
HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Reply:
    """The first answer of a connection, and how long it took from the last byte sent; status 0: there was none."""

    raw: bytes
    seconds: float

    @property
    def status(self) -> int:
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", self.raw)
        return int(found.group(1)) if found else 0

    @property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(HEAD_END)[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @cached_property
    def body(self) -> bytes:
        """What its length says; what follows belongs to later answers."""
        rest = self.raw.partition(HEAD_END)[2]
        return rest[: int(self.headers.get("content-length", len(rest)))]

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """What it says to people, whatever the protocol calls that."""
        document = self.document
        return str(document.get("error") or document["message"])


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a server's URL."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host.strip("[]"), int(port)


@contextmanager
def connected(url: str, *, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """Open a connection; with a small receive buffer the server soon notices that nobody reads."""
    connection = socket.socket()
    connection.settimeout(PATIENCE_SECONDS)
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    with connection:
        connection.connect(address_of(url))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def head(path: str, length: int | None, *lines: str, method: str = "POST") -> bytes:
    """Write a request's head, with the length of its body unless that is None."""
    announced = [] if length is None else [f"content-length: {length}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: x", *lines, *announced, "", ""]).encode("latin-1")


def request(path: str, body: bytes, *lines: str) -> bytes:
    """Write a whole request, of JSON unless a line says otherwise."""
    typed = (
        () if any(line.lower().startswith("content-type") for line in lines) else ("content-type: application/json",)
    )
    return head(path, len(body), *typed, *lines) + body


def ask(url: str, path: str, body: bytes, *lines: str) -> Reply:
    """Post a body, and read until the server closes."""
    return exchange(url, request(path, body, "connection: close", *lines))


def exchange(url: str, *pieces: bytes, pause: float = 0.0, receive_buffer: int | None = None) -> Reply:
    """Send pieces one by one, and read until the server closes."""
    with connected(url, receive_buffer=receive_buffer) as connection:
        with contextlib.suppress(ConnectionError):  # it may have had enough before all is sent
            send(connection, pieces, pause)
        sent = time.perf_counter()
        raw = read_to_the_end(connection)
        return Reply(raw, time.perf_counter() - sent)


def send(connection: socket.socket, pieces: Sequence[bytes], pause: float) -> None:
    for place, piece in enumerate(pieces):
        if place and pause:
            time.sleep(pause)
        connection.sendall(piece)


def read_to_the_end(connection: socket.socket) -> bytes:
    """Read until the server closes, however it does."""
    parts: list[bytes] = []
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(1 << 16):
            parts.append(piece)
    return b"".join(parts)


def read_one(connection: socket.socket) -> Reply:
    """Read one answer from a connection that stays open."""
    started, raw = time.perf_counter(), b""
    while HEAD_END not in raw or len(raw) < _whole_length(raw):
        piece = connection.recv(1 << 16)
        if not piece:
            break
        raw += piece
    return Reply(raw, time.perf_counter() - started)


def _whole_length(raw: bytes) -> int:
    top, _, _ = raw.partition(HEAD_END)
    found = re.search(rb"(?i)content-length: *(\d+)", top)
    return len(top) + len(HEAD_END) + (int(found.group(1)) if found else 0)


def is_closed(connection: socket.socket, *, within: float) -> bool:
    """Wait until the server closes; say if it did in time."""
    connection.settimeout(within)
    try:
        read_to_the_end(connection)
    except TimeoutError:
        return False
    return True
