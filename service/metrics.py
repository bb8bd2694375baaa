"""What the server counts, for Prometheus: requests, failures, seconds, and on which device each model runs.

A request is counted by three additions to cells of memory (`counts.py`); Prometheus' client, whose counters take a
lock and several function calls each, comes in when somebody reads them (`exposition.py`). With several workers each
scrape adds all up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.counts import Cells, Counted, Counts, Labels
from service.errors import FAILURE_CODES

LATENCY_BUCKETS_SECONDS = (
    *(25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6),
    *(1.6e-3, 3.2e-3, 6.4e-3, 12.8e-3, 25.6e-3, 51.2e-3, 0.1, 0.25, 1.0, 5.0),
)
OTHER = "other"  # what no place was kept for; it would be a bug, and shows
STATUSES = ("200", "400", "404", "408", "413", "415", "422", "429", "500", "503", "504", OTHER)
REASONS = (*FAILURE_CODES, "internal_server_error", OTHER)

# The cells of a model: its latencies (one for each bucket, one for all above), their sum, its statuses, its reasons.
SUM = len(LATENCY_BUCKETS_SECONDS) + 1
STATUS_CELLS = {status: SUM + 1 + place for place, status in enumerate(STATUSES)}
REASON_CELLS = {reason: SUM + 1 + len(STATUSES) + place for place, reason in enumerate(REASONS)}
NUM_CELLS = SUM + 1 + len(STATUSES) + len(REASONS)
OK = STATUS_CELLS["200"]


@dataclass(frozen=True)
class Running:
    """On what a model runs: the device that was asked for, the provider that computes, how its GPU's memory fills."""

    device: str
    provider: str
    num_bytes_since_ready: Callable[[], int | None]


class Metrics:
    """All counters, those of several processes where `directory` is shared by them; and on what each model runs."""

    def __init__(self, directory: Path | None = None) -> None:
        self._counts = Counts(NUM_CELLS, directory)
        self.running: dict[Labels, Running] = {}

    def for_model(self, name: str, version: str | None) -> ModelMetrics:
        """Look up the counters of one model."""
        return ModelMetrics(self._counts.open((name, version or "")))

    def announce(self, name: str, version: str | None, running: Running) -> None:
        """Say that a model is served, and on what."""
        self.running[name, version or ""] = running

    def counted(self) -> list[Counted]:
        """Add up what all processes have counted, by model."""
        return self._counts.sums()


class Recorder(Protocol):
    """Counts the answered requests of one model."""

    def record(self, status: int, reason: str, seconds: float) -> None:
        """Count one answered request."""


class ModelMetrics:
    """The counters of one model, in one process."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def record(self, status: int, reason: str, seconds: float) -> None:
        """Count one answered request."""
        cells = self._cells
        cells[bisect_left(LATENCY_BUCKETS_SECONDS, seconds)] += 1
        cells[SUM] += seconds
        if status == 200:
            cells[OK] += 1
        else:
            cells[STATUS_CELLS.get(str(status), STATUS_CELLS[OTHER])] += 1
            cells[REASON_CELLS.get(reason, REASON_CELLS[OTHER])] += 1
