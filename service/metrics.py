"""What the server counts, for Prometheus: requests, failures, seconds by stage, batches, and what is loaded.

A request is counted by additions to cells of memory (`counts.py`); Prometheus' client, whose counters take a lock and
several function calls each, comes in when somebody reads them (`exposition.py`). With several workers each scrape adds
all up. What goes up and down (how many wait) is written when somebody reads, and every second for the other workers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.counts import Cells, Counted, Counts, Labels
from service.errors import FAILURE_CODES
from service.protocols.answer import STAGES, Answer

LATENCY_BUCKETS_SECONDS = (
    *(25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6),
    *(1.6e-3, 3.2e-3, 6.4e-3, 12.8e-3, 25.6e-3, 51.2e-3, 0.1, 0.25, 1.0, 5.0),
)
OTHER = "other"  # what no place was kept for; it would be a bug, and shows
STATUSES = (
    *("200", "400", "401", "403", "404", "405", "408", "409", "413", "415", "422", "429"),
    *("500", "503", "504", "507", OTHER),
)
REASONS = (*FAILURE_CODES, "not_found", "method_not_allowed", "internal_server_error", OTHER)

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)

# The cells of a model: its latencies (one for each bucket, one for all above), their sum; the same for each stage; how
# many instances ran together; its statuses, its reasons.
NUM_BUCKETS = len(LATENCY_BUCKETS_SECONDS) + 1
SUM = NUM_BUCKETS
STAGE_CELLS = {stage: (place + 1) * (NUM_BUCKETS + 1) for place, stage in enumerate(STAGES)}
BATCHES = (len(STAGES) + 1) * (NUM_BUCKETS + 1)
BATCH_SUM = BATCHES + len(BATCH_SIZES) + 1
STATUS_CELLS = {status: BATCH_SUM + 1 + place for place, status in enumerate(STATUSES)}
REASON_CELLS = {reason: BATCH_SUM + 1 + len(STATUSES) + place for place, reason in enumerate(REASONS)}
NUM_CELLS = BATCH_SUM + 1 + len(STATUSES) + len(REASONS)
OK = STATUS_CELLS["200"]
PARSE, QUEUE, INFER, ENCODE = STAGE_CELLS.values()
# The cells of what goes up and down.
QUEUED, IN_FLIGHT, LOADED, CHECKED_AT = range(4)
NUM_LEVELS = 4
NO_MODEL = ("", "")  # what is refused before it comes to a model


@dataclass(frozen=True)
class Running:
    """On what a model runs: the device that was asked for, the provider that computes, how its GPU's memory fills."""

    device: str
    provider: str
    num_bytes_since_ready: Callable[[], int | None]


@dataclass(frozen=True)
class Level:
    """What goes up and down for one model version in one process: 1 if it is loaded, when its self check was made."""

    num_queued: Callable[[], int]
    num_in_flight: Callable[[], int]
    checked_at: float  # seconds since 1970


class Metrics:
    """All counters, those of several processes where `directory` is shared by them; and on what each model runs."""

    def __init__(self, directory: Path | None = None) -> None:
        self._counts = Counts(NUM_CELLS, directory)
        self._levels = Counts(NUM_LEVELS, directory, suffix=".levels")
        self._level_of: dict[Labels, Level] = {}
        self.running: dict[Labels, Running] = {}
        self.num_lines_lost: Callable[[], int] = lambda: 0  # of this process, once it has a journal
        self.num_spans_lost: Callable[[], int] = lambda: 0
        self.refusals = ModelMetrics(self._counts.open(NO_MODEL))

    def for_model(self, name: str, version: str | None) -> ModelMetrics:
        """Look up the counters of one model version."""
        return ModelMetrics(self._counts.open((name, version or "")))

    def announce(self, name: str, version: str | None, running: Running, level: Level) -> None:
        """Say that a model version is served, and on what."""
        self.running[name, version or ""] = running
        self._level_of[name, version or ""] = level

    def withdraw(self, name: str, version: str | None) -> None:
        """Say that a model version is not served any more."""
        labels = (name, version or "")
        self.running.pop(labels, None)
        if self._level_of.pop(labels, None) is not None:
            self._levels.open(labels)[:] = memoryview(bytes(NUM_LEVELS * 8)).cast("d")

    def refresh(self) -> None:
        """Write what goes up and down, for whoever reads it."""
        for labels, level in self._level_of.items():
            cells = self._levels.open(labels)
            cells[QUEUED], cells[IN_FLIGHT] = level.num_queued(), level.num_in_flight()
            cells[LOADED], cells[CHECKED_AT] = 1, level.checked_at

    def counted(self) -> list[Counted]:
        """Add up what all processes have counted, by model version."""
        return self._counts.sums()

    def levels(self) -> list[Counted]:
        """Give what goes up and down in each living process, by model version."""
        self.refresh()
        return self._levels.each_alive()


class Recorder(Protocol):
    """Counts the answered requests of one model version."""

    def record(self, answer: Answer, seconds: float, arrived: float = 0.0) -> None:
        """Count a request that arrived whole at `arrived` and was answered `seconds` later."""


class ModelMetrics:
    """The counters of one model version, in one process."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def record(self, answer: Answer, seconds: float, arrived: float = 0.0) -> None:
        """Count a request that arrived whole at `arrived` and was answered `seconds` later."""
        cells, status = self._cells, answer.status
        cells[bisect_left(LATENCY_BUCKETS_SECONDS, seconds)] += 1
        cells[SUM] += seconds
        if answer.times is not None:
            self._record_stages(arrived, *answer.times)
        if status == 200:
            cells[OK] += 1
        else:
            cells[STATUS_CELLS.get(str(status), STATUS_CELLS[OTHER])] += 1
            cells[REASON_CELLS.get(answer.reason, REASON_CELLS[OTHER])] += 1

    def _record_stages(self, arrived: float, read: float, started: float, computed: float, written: float) -> None:
        """Count each stage: written out, as a loop would take twice as long, for every request."""
        cells, buckets = self._cells, LATENCY_BUCKETS_SECONDS
        seconds = read - arrived
        cells[PARSE + bisect_left(buckets, seconds)] += 1
        cells[PARSE + SUM] += seconds
        seconds = started - read
        cells[QUEUE + bisect_left(buckets, seconds)] += 1
        cells[QUEUE + SUM] += seconds
        seconds = computed - started
        cells[INFER + bisect_left(buckets, seconds)] += 1
        cells[INFER + SUM] += seconds
        seconds = written - computed
        cells[ENCODE + bisect_left(buckets, seconds)] += 1
        cells[ENCODE + SUM] += seconds

    def record_batch(self, size: int) -> None:
        """Count a run of the model."""
        self._cells[BATCHES + bisect_left(BATCH_SIZES, size)] += 1
        self._cells[BATCH_SUM] += size
