"""What the server counts, for Prometheus: requests, failures, seconds, and on which device each model runs.

A request is counted by three additions to cells of memory (`counts.py`); Prometheus' client, whose counters take a
lock and several function calls each, comes in when somebody reads them. With several workers each scrape adds all up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.counts import Cells, Counted, Counts, Labels
from service.errors import FAILURE_CODES

LATENCY_BUCKETS_SECONDS = (
    *(25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6),
    *(1.6e-3, 3.2e-3, 6.4e-3, 12.8e-3, 25.6e-3, 51.2e-3, 0.1, 0.25, 1.0, 5.0),
)
MODEL_LABELS = ("model", "version")
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


class Metrics(Collector):
    """All counters; `render` gives those of all processes where `directory` is shared by several."""

    def __init__(self, directory: Path | None = None) -> None:
        self._counts = Counts(NUM_CELLS, directory)
        self._running: dict[Labels, Running] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def for_model(self, name: str, version: str | None) -> ModelMetrics:
        """Look up the counters of one model."""
        return ModelMetrics(self._counts.open((name, version or "")))

    def announce(self, name: str, version: str | None, running: Running) -> None:
        """Say that a model is served, and on what."""
        self._running[name, version or ""] = running

    def render(self) -> bytes:
        """Write all numbers in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing is known before it is counted: so Prometheus' client need not collect when we register."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give the numbers as they are now, as Prometheus' client takes them."""
        counted = self._counts.sums()
        yield _count("foldserve_requests", "Prediction requests answered", "status", STATUS_CELLS, counted)
        yield _count("foldserve_failures", "Prediction requests refused or failed", "reason", REASON_CELLS, counted)
        yield _distribution(counted)
        yield _describe_devices(self._running)
        yield _count_allocated(self._running)


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


def _describe_devices(models: dict[Labels, Running]) -> Metric:
    text = "Always 1: the device that was asked for, and the ONNX Runtime provider that computes"
    family = GaugeMetricFamily("foldserve_model_info", text, labels=(*MODEL_LABELS, "device", "provider"))
    for labels, running in models.items():
        family.add_metric((*labels, running.device, running.provider), 1)
    return family


def _count_allocated(models: dict[Labels, Running]) -> Metric:
    """Of this process, and only where there is a GPU."""
    text = "Bytes by which the GPU's memory has filled since the model was made ready: 0 if all is well"
    family = GaugeMetricFamily("foldserve_gpu_bytes_since_ready", text, labels=MODEL_LABELS)
    for labels, running in models.items():
        num_bytes = running.num_bytes_since_ready()
        if num_bytes is not None:
            family.add_metric(labels, num_bytes)
    return family


def _count(name: str, text: str, label: str, cells: dict[str, int], counted: list[Counted]) -> Metric:
    """Those that have happened, and successes even where there is none yet."""
    family = CounterMetricFamily(name, text, labels=(*MODEL_LABELS, label))
    for one in counted:
        for value, cell in cells.items():
            if one.values[cell] or value == "200":
                family.add_metric((*one.labels, value), one.values[cell])
    return family


def _distribution(counted: list[Counted]) -> Metric:
    text = "From the last byte of the body to the answer, its writing left out"
    family = HistogramMetricFamily("foldserve_request_seconds", text, labels=MODEL_LABELS)
    bounds = [*map(str, LATENCY_BUCKETS_SECONDS), "+Inf"]
    for one in counted:
        buckets = list(zip(bounds, accumulate(one.values[:SUM]), strict=True))
        family.add_metric(one.labels, buckets=buckets, sum_value=one.values[SUM])
    return family
