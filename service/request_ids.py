"""Names for requests, by which an answer, its log line and its trace are found together: the client's, or a new one."""

from __future__ import annotations

import itertools
import secrets

_prefix = secrets.token_hex(6).encode()
_numbers = itertools.count(1)


def name_request(given: bytes) -> bytes:
    """Give the client's name for a request if it is a fit one, else a new one."""
    if given and len(given) <= 128:
        return given
    return b"%b-%x" % (_prefix, next(_numbers))
