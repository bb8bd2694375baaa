"""What a protocol is to the rest of the server: it reads instances out of a request and writes outputs into an answer.

Where and when the model runs, who counts, how long a body may be, who may ask: none of that is a protocol's affair. So
every protocol gives the same numbers for the same instance, and a new one is two functions more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from service.errors import FoldserveError
from service.protocols.answer import Answer

# May be read thoroughly on the event loop: a millisecond or so. What is longer, and not quickly read, goes to a thread.
MAX_INLINE_BYTES = 2 * 1024
# All outputs of the model, in the signature's order, each [instances, …]. They are buffers that the next run writes
# over: what is to be kept has to be copied, or written as text or bytes, before `Work.write` returns.
Outputs = tuple[NDArray[Any], ...]


class Headers(NamedTuple):
    """The headers of a request that somebody here looks at; empty where the request has none of the name."""

    content_type: bytes = b""
    content_encoding: bytes = b""
    header_length: bytes = b""  # Inference-Header-Content-Length
    timeout: bytes = b""  # X-Request-Timeout, in seconds
    request_id: bytes = b""  # X-Request-Id
    traceparent: bytes = b""
    authorization: bytes = b""
    api_key: bytes = b""  # X-Api-Key
    accept: bytes = b""


class Question(NamedTuple):
    """What was posted: the body, with no compression left; what its headers say; the URL's query, without the `?`."""

    body: bytes
    headers: Headers = Headers()
    query: bytes = b""


class Work(NamedTuple):
    """What a request asks the model for.

    `instances` are one or more, each as the bytes of an array of the signature's dtype and shape, in row-major order.
    `write` turns all outputs of just these instances, in this order, into the answer; it may raise a FoldserveError.
    After `timeout_seconds` from the request's arrival nobody wants the answer any more; None: for ever.

    `write_together`, where there is one, turns the outputs of several such requests, of one instance each, into the
    bodies of their answers (status 200, JSON), the very ones that `write` gives for each; or raises a FoldserveError if
    it can not for all. It is the same object for all requests that may be written together.
    """

    instances: Sequence[bytes]
    write: Callable[[Outputs], Answer]
    timeout_seconds: float | None = None
    write_together: Callable[[Outputs], list[bytes]] | None = None


class Contract(Protocol):
    """One protocol, for one version of one model. It keeps nothing of a request, and may be used in any thread."""

    def try_read(self, question: Question) -> Work | None:
        """Read a good request, quickly, on the event loop; None if it takes long or something is wrong."""

    def read(self, question: Question) -> Work:
        """Read any request thoroughly, however long that takes; in a thread if the body is long.

        Raises:
            RequestError: the request can not be answered; `field`, `expected` and `got` say where and why.
        """

    def refuse(self, error: FoldserveError) -> Answer:
        """Say in the protocol's own form why there is no answer."""
