"""What the server counts, for Prometheus: requests, failures, seconds, and on which device each model runs.

With several workers each scrape adds all of them up, through files in a directory that they share. The hot path
touches only counters that were looked up before.
"""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

LATENCY_BUCKETS_SECONDS = (
    *(25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6),
    *(1.6e-3, 3.2e-3, 6.4e-3, 12.8e-3, 25.6e-3, 51.2e-3, 0.1, 0.25, 1.0, 5.0),
)
MODEL_LABELS = ("model", "version")


class Metrics:
    """All counters of one process; `render` gives those of all processes where `directory` is shared by several."""

    def __init__(self, directory: str | None = None) -> None:
        self._directory = directory
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "foldserve_requests", "Prediction requests answered", (*MODEL_LABELS, "status"), registry=registry
        )
        self._failures = Counter(
            "foldserve_failures", "Prediction requests refused or failed", (*MODEL_LABELS, "reason"), registry=registry
        )
        self._seconds = Histogram(
            "foldserve_request_seconds",
            "From the last byte of the body to the answer, its writing left out",
            MODEL_LABELS,
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=registry,
        )
        self._model_info = Gauge(
            "foldserve_model_info",
            "Always 1: the device that was asked for, and the ONNX Runtime provider that computes",
            (*MODEL_LABELS, "device", "provider"),
            registry=registry,
            multiprocess_mode="max",
        )

    def for_model(self, name: str, version: str | None) -> ModelMetrics:
        """Look up the counters of one model."""
        return ModelMetrics(self._requests, self._failures, self._seconds, (name, version or ""))

    def announce(self, name: str, version: str | None, *, device: str, provider: str) -> None:
        """Say that a model is served, and on what."""
        self._model_info.labels(name, version or "", device, provider).set(1)

    def render(self) -> bytes:
        """Write all numbers in Prometheus' text format."""
        if self._directory is None:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=self._directory)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class ModelMetrics:
    """The counters of one model."""

    def __init__(self, requests: Counter, failures: Counter, seconds: Histogram, model: tuple[str, str]) -> None:
        self._observe = seconds.labels(*model).observe
        self._count_ok = requests.labels(*model, "200").inc
        # Statuses and reasons are few, and come from one table: the caches stay small.
        self._count = lru_cache(maxsize=None)(lambda status: requests.labels(*model, str(status)).inc)
        self._count_failure = lru_cache(maxsize=None)(lambda reason: failures.labels(*model, reason).inc)

    def record(self, status: int, reason: str, seconds: float) -> None:
        """Count one answered request."""
        self._observe(seconds)
        if status == 200:
            self._count_ok()
        else:
            self._count(status)()
            self._count_failure(reason)()
