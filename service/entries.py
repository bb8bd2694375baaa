"""What is known of one answered request when it is over: what its log line and its trace are made of.

While requests are answered it is only handed over as it is; a thread makes lines (`logs`) and spans (`tracing`) of it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from service.protocols.answer import STAGES, Times
from service.trace_context import TraceContext

MAX_PATH = 200


class Entry(NamedTuple):
    """One request, and its answer.

    It was here whole at `arrived` and answered at `answered`, both by `time.perf_counter`, as `times` are. `reason` is
    empty for a success; `method` is empty where it did not come by HTTP, and `client` where it is not to be known.
    """

    request_id: bytes
    status: int
    arrived: float
    answered: float
    reason: str = ""
    times: Times | None = None
    model: str = ""
    version: str | None = None
    protocol: str = ""
    method: str = ""
    path: str = ""
    bytes_in: int | None = None
    trace: TraceContext | None = None
    client: str = ""

    def bounded(self) -> Entry:
        """Give it with no more of the path than is written: thousands of them may have to wait in memory."""
        return self if len(self.path) <= MAX_PATH else self._replace(path=self.path[:MAX_PATH])

    @property
    def is_failure(self) -> bool:
        """Whether it is the server's fault that there is no better answer."""
        return self.status >= 500

    def stages(self) -> list[tuple[str, float, float]]:
        """Give when each stage began and ended; none if the model was not asked."""
        if self.times is None:
            return []
        moments = pairwise((self.arrived, *self.times))
        return [(stage, begin, end) for stage, (begin, end) in zip(STAGES, moments, strict=True)]
