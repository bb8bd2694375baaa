"""Requests that differ in their numbers only: what was made of the text around the numbers is kept, and found again.

A client sends the same names, shapes and parameters over and over. So the text before and after the one flat list of
numbers is the key under which is kept what it asked for, once a whole request with it has been read and found good. The
list itself is read each time, by the very reader of our own contract: a JSON document in which a list of numbers stands
in the place of another list of numbers is the same document but for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from service.bundle import Signature
from service.instance import InstanceReader
from service.protocols.answer import Answer
from service.protocols.contract import Outputs, Work

DATA_KEY = b'"data"'
MAX_KEPT = 256
MAX_AROUND_BYTES = 2048


class Parts(NamedTuple):
    """A text, cut before and after the first flat list behind its first `"data"`."""

    before: bytes
    numbers: bytes
    after: bytes


class Familiar:
    """What is known of the requests for one model. Several threads may use it."""

    def __init__(self, signature: Signature, reader: InstanceReader) -> None:
        # In a table with words our own contract takes words, where this protocol has their codes.
        self._is_possible = not any(feature.categories for feature in signature.features)
        self._try_pack = reader.try_pack
        self._known: dict[tuple[bytes, bytes], tuple[Callable[[Outputs], Answer], float | None]] = {}

    def try_read(self, text: bytes) -> Work | None:
        """Read a request whose like has been seen; None if it has not, or if something is wrong with its numbers."""
        parts = _cut(text)
        known = self._known.get((parts.before, parts.after)) if parts is not None else None
        if parts is None or known is None:
            return None
        packed = self._try_pack(b'{"instance":' + parts.numbers + b"}")
        return None if packed is None else Work((packed,), *known)

    def remember(self, text: bytes, data: object, work: Work) -> None:
        """Keep what a good request of one instance asked for, if `data`, the text of its numbers, is where we look."""
        parts = _cut(text)
        if not self._is_possible or parts is None or parts.numbers != data:
            return
        if len(parts.before) + len(parts.after) > MAX_AROUND_BYTES:
            return
        if len(self._known) >= MAX_KEPT:
            self._known.clear()
        self._known[parts.before, parts.after] = (work.write, work.timeout_seconds)


def _cut(text: bytes) -> Parts | None:
    start = text.find(b"[", text.find(DATA_KEY))
    stop = text.find(b"]", start) + 1
    if start < 0 or not stop:
        return None
    return Parts(text[:start], text[start:stop], text[stop:])
