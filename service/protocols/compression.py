"""Bodies that come compressed: unpacked piece by piece, so that a bomb costs no more than the limit."""

from __future__ import annotations

import zlib

from service.errors import BodyMalformed, BodyTooLarge, MediaTypeUnsupported

USUAL_ENCODINGS = frozenset({b"", b"identity"})
# What zlib is told of the wrapping: "deflate" is zlib's by the standard, and bare by an old mistake of many clients.
GZIP, ZLIB, BARE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
MAX_MEMBERS = 16  # gzip may be several, one after the other


def is_plain(encoding: bytes) -> bool:
    """Say if a body of this content encoding is to be read as it is."""
    return encoding in USUAL_ENCODINGS or encoding.strip().lower() in USUAL_ENCODINGS


def unpack(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """Unpack a body, to `max_bytes` at most.

    Raises:
        MediaTypeUnsupported: it is compressed by something else than gzip or deflate, or more than once.
        BodyMalformed: it is not what its header says.
        BodyTooLarge: it is longer than that when it is unpacked.
    """
    match encoding.strip().lower():
        case b"gzip" | b"x-gzip":
            return _unpack_members(body, max_bytes)
        case b"deflate":
            return _unpack_deflate(body, max_bytes)
    shown = encoding.decode("latin-1")[:80]
    raise MediaTypeUnsupported(
        f"content-encoding: expected gzip, deflate or none, got {shown!r}",
        field="content-encoding",
        expected="gzip, deflate or none",
        got=shown,
    )


def _unpack_members(body: bytes, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    for _ in range(MAX_MEMBERS):
        part, body = _unpack_one(body, GZIP, max_bytes - sum(map(len, parts)), max_bytes)
        parts.append(part)
        if not body:
            return b"".join(parts)
    raise BodyMalformed(f"the body is gzip of more than {MAX_MEMBERS} members", expected="one member", got="more")


def _unpack_deflate(body: bytes, max_bytes: int) -> bytes:
    try:
        unpacked, rest = _unpack_one(body, ZLIB, max_bytes, max_bytes)
    except BodyMalformed:
        unpacked, rest = _unpack_one(body, BARE, max_bytes, max_bytes)
    if rest:
        raise BodyMalformed(f"{len(rest)} bytes follow the end of what was compressed", got=f"{len(rest)} bytes more")
    return unpacked


def _unpack_one(body: bytes, wrapping: int, room: int, max_bytes: int) -> tuple[bytes, bytes]:
    """Unpack what begins here; give also what follows behind it."""
    unpacker = zlib.decompressobj(wrapping)
    try:
        unpacked = unpacker.decompress(body, room + 1)
    except zlib.error as err:
        raise BodyMalformed("the body is not what its content-encoding says: it can not be unpacked") from err
    if len(unpacked) > room:
        expected = f"at most {max_bytes} bytes"
        raise BodyTooLarge(f"the body is too large when unpacked: expected {expected}", expected=expected, got="more")
    if not unpacker.eof:
        raise BodyMalformed("the body breaks off before the end of what was compressed")
    return unpacked, unpacker.unused_data
