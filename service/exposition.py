"""What was counted, in Prometheus' text format: the one place that knows Prometheus' client."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.counts import Counted, Labels
from service.metrics import LATENCY_BUCKETS_SECONDS, REASON_CELLS, STATUS_CELLS, SUM, Metrics, Running

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
MODEL_LABELS = ("model", "version")


def expose(metrics: Metrics) -> bytes:
    """Write what was counted for each model, and on what it runs."""
    registry = CollectorRegistry()
    registry.register(_Families(metrics.counted(), metrics.running))
    return generate_latest(registry)


class _Families(Collector):
    """The numbers as Prometheus' client takes them."""

    def __init__(self, counted: list[Counted], running: dict[Labels, Running]) -> None:
        self._counted = counted
        self._running = running

    def describe(self) -> list[Metric]:
        """Leave it to `collect`, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give one family after the other."""
        counted = self._counted
        yield _count("foldserve_requests", "Prediction requests answered", "status", STATUS_CELLS, counted)
        yield _count("foldserve_failures", "Prediction requests refused or failed", "reason", REASON_CELLS, counted)
        yield _distribution(counted)
        yield _describe_devices(self._running)
        yield _count_allocated(self._running)


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
