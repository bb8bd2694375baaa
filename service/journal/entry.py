"""What is known of one answered request, for its log line and its trace."""

from __future__ import annotations

import time
from typing import NamedTuple

from service.protocols.answer import Times
from service.protocols.contract import Headers


class Entry(NamedTuple):
    """One answered request. `arrived`, `answered` and `times` are by `time.perf_counter`."""

    protocol: str
    model: str
    version: str
    status: int
    reason: str
    answer_bytes: int
    headers: Headers
    request_id: bytes
    arrived: float
    answered: float
    times: Times | None

    def stages(self) -> dict[str, float]:
        """Give how long each stage took, in milliseconds; empty if the model was not asked."""
        if self.times is None:
            return {}
        read, started, computed, written = self.times
        return {
            "parse_ms": round((read - self.arrived) * 1e3, 3),
            "queue_ms": round((started - read) * 1e3, 3),
            "infer_ms": round((computed - started) * 1e3, 3),
            "encode_ms": round((written - computed) * 1e3, 3),
        }


def to_wall_clock(moment: float) -> float:
    """Turn a moment of `time.perf_counter`, of a short while ago, into seconds since 1970.

    By the clock as it is now: durations stay what they were however that was set meanwhile.
    """
    return time.time() - (time.perf_counter() - moment)
