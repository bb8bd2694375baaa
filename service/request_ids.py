"""Names for requests, by which an answer, its log line and its trace are found together: the client's, or a new one.

A new one is this process's random prefix and a number, so that no two processes, and no two starts, give the same.
"""

from __future__ import annotations

import itertools
import secrets
import string

MAX_BYTES = 128
# What can stand in a header, a shell, a query or a log without being quoted, escaped or taken for something else.
FIT = (string.ascii_letters + string.digits + "-_.:/+=@~#!$*%|^").encode()

_prefix = secrets.token_hex(6).encode()
_numbers = itertools.count(1)


def name_request(given: bytes) -> bytes:
    """Give the client's name for a request if it is a fit one, else a new one."""
    if given and len(given) <= MAX_BYTES and not given.translate(None, FIT):
        return given
    return b"%b-%x" % (_prefix, next(_numbers))
