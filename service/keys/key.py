"""API keys as the server knows them: by name, by what they are for, and by a hash that the key can not be got from.

A key is 256 random bits, so one round of SHA-256 is enough to hide it: nobody can try that many. Slow hashes (scrypt,
argon2) are for passwords, of which people choose few; here they would cost every request milliseconds.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from hashlib import sha256

from service.errors import KeyMissing
from service.protocols.contract import Headers
from service.route_groups import Group

PREFIX = "fsk_"  # so that scanners for leaked secrets, and people, see what it is
NUM_BYTES = 32
SCHEME = b"bearer"
HOW_TO_SEND = "`Authorization: Bearer <key>` or `X-API-Key: <key>`"


@dataclass(frozen=True)
class Key:
    """One key: whose it is, which groups of routes it opens, and its SHA-256."""

    name: str
    groups: frozenset[Group]
    digest: bytes = field(repr=False)


@dataclass(frozen=True)
class Keys:
    """All keys that are good at the moment; several for one client while it changes from one to the next."""

    keys: tuple[Key, ...] = ()

    def find(self, sent: bytes) -> Key | None:
        """Find the key that was sent.

        It is compared with all of them, each in the same time, so that the time says nothing about any.
        """
        digest = hash_key(sent)
        found = None
        for key in self.keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found


def create_key() -> str:
    """Make a new key."""
    return PREFIX + secrets.token_urlsafe(NUM_BYTES)


def hash_key(key: bytes) -> bytes:
    """Give the SHA-256 of a key as it is sent."""
    return sha256(key).digest()


def read_sent_key(headers: Headers) -> bytes:
    """Give the key that came with a request; empty if none did.

    A proxy's own `Authorization: Basic …` is no key, and does no harm beside one in `X-API-Key`.

    Raises:
        KeyMissing: two keys came, and they differ.
    """
    scheme, _, token = headers.authorization.partition(b" ")
    bearer = token.strip() if scheme.lower() == SCHEME else b""
    if bearer and headers.api_key and bearer != headers.api_key:
        raise KeyMissing(
            "Authorization and X-API-Key: expected one key, got two that differ; send only one of these headers",
            field="authorization",
            expected=HOW_TO_SEND,
            got="two keys",
        )
    return bearer or headers.api_key
