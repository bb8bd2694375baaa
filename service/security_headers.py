"""Headers that tell a browser to be careful with what we answer, by the kind of answer.

Every answer says that it is what its content type says (nosniff): no browser takes a prediction for a script. More
than this one a prediction does not need: no cache may keep the answer to a POST unless it is told to (RFC 9111), so
no bytes are spent on saying so. Documents are answers to GET that change with the models, some of them for one key
only, which a cache does not see in `X-API-Key`: nothing may keep them.

Pages (/docs) may run the scripts that come from here and those that stand in the page as it was written, known by
their hashes: whatever gets into the page later, such as by a model's name, does not run. They may not be framed, and
may talk only to this server.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from hashlib import sha256

EVERY_ANSWER = ((b"x-content-type-options", b"nosniff"),)
DOCUMENT = (*EVERY_ANSWER, (b"cache-control", b"no-store"))
PAGE = (
    *DOCUMENT,
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
DOCUMENT_TYPES = frozenset({b"application/json", b"text/plain", b"application/openmetrics-text"})
INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
POLICY = (
    b"default-src 'none'",
    b"style-src 'self'",
    b"img-src 'self' data:",  # the icons in Swagger UI's style sheet
    b"connect-src 'self'",
    b"base-uri 'none'",
    b"form-action 'none'",
    b"frame-ancestors 'none'",
)
Header = tuple[bytes, bytes]


def security_headers(content_type: bytes, body: bytes = b"") -> tuple[Header, ...]:
    """Give the headers for an answer that is no prediction; of a page, `body` is wanted whole."""
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"text/html":
        return (*PAGE, (b"content-security-policy", write_policy(body)))
    return DOCUMENT if media_type in DOCUMENT_TYPES else EVERY_ANSWER


@lru_cache(maxsize=16)
def write_policy(page: bytes) -> bytes:
    """Write the Content-Security-Policy of a page."""
    hashes = b"".join(b" 'sha256-%b'" % base64.b64encode(sha256(text).digest()) for text in INLINE_SCRIPT.findall(page))
    return b"; ".join([*POLICY, b"script-src 'self'" + hashes])
