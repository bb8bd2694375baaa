"""What was counted, in Prometheus' text format: the one place that knows Prometheus' client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.counts import Counted, Labels
from service.metrics import (
    BATCH_SIZES,
    BATCH_SUM,
    BATCHES,
    CHECKED_AT,
    IN_FLIGHT,
    LATENCY_BUCKETS_SECONDS,
    LOADED,
    NO_MODEL,
    NUM_BUCKETS,
    QUEUED,
    REASON_CELLS,
    STAGE_CELLS,
    STATUS_CELLS,
    SUM,
    Metrics,
    Running,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
MODEL_LABELS = ("model", "version")


def expose(metrics: Metrics) -> bytes:
    """Write what was counted for each model, and on what it runs."""
    registry = CollectorRegistry()
    registry.register(_Families(metrics.counted(), metrics.levels(), metrics.running))
    registry.register(_Losses(metrics))
    return generate_latest(registry)


class _Families(Collector):
    """The numbers as Prometheus' client takes them."""

    def __init__(self, counted: list[Counted], levels: list[Counted], running: dict[Labels, Running]) -> None:
        self._counted = counted
        self._levels = levels
        self._running = running

    def describe(self) -> list[Metric]:
        """Leave it to `collect`, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give one family after the other."""
        counted = self._counted
        yield _count("foldserve_requests", "Prediction requests answered", "status", STATUS_CELLS, counted)
        yield _count("foldserve_failures", "Prediction requests refused or failed", "reason", REASON_CELLS, counted)
        asked = [one for one in counted if one.labels != NO_MODEL]
        yield _distribute_seconds(asked)
        yield _distribute_stages(asked)
        yield _distribute_batches(asked)
        yield _add_levels("foldserve_queue_depth", "Requests that wait for the model", QUEUED, self._levels)
        yield _add_levels("foldserve_in_flight", "Requests that wait, or are worked on", IN_FLIGHT, self._levels)
        yield _add_levels("foldserve_loaded", "Processes that have this version loaded", LOADED, self._levels)
        yield _age_of_checks(self._levels)
        yield _describe_devices(self._running)
        yield _count_allocated(self._running)


class _Losses(Collector):
    """What was to be said of requests and never was, in the process that is asked."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        """Leave it to `collect`, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give one family after the other."""
        lines, spans = self._metrics.num_lines_lost(), self._metrics.num_spans_lost()
        yield CounterMetricFamily("foldserve_log_lines_lost", "Log lines of this process never written", value=lines)
        yield CounterMetricFamily("foldserve_spans_lost", "Traces of this process that got nowhere", value=spans)


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


def _distribute_seconds(counted: list[Counted]) -> Metric:
    text = "From the last byte of the body to the answer, its writing left out"
    family = HistogramMetricFamily("foldserve_request_seconds", text, labels=MODEL_LABELS)
    for one in counted:
        family.add_metric(one.labels, buckets=_buckets(one, 0), sum_value=one.values[SUM])
    return family


def _distribute_stages(counted: list[Counted]) -> Metric:
    text = "Stages of those requests that came to the model: parse, queue, infer, encode"
    family = HistogramMetricFamily("foldserve_stage_seconds", text, labels=(*MODEL_LABELS, "stage"))
    for one in counted:
        for stage, first in STAGE_CELLS.items():
            buckets = _buckets(one, first)
            family.add_metric((*one.labels, stage), buckets=buckets, sum_value=one.values[first + SUM])
    return family


def _distribute_batches(counted: list[Counted]) -> Metric:
    family = HistogramMetricFamily("foldserve_batch_size", "Instances in one run of the model", labels=MODEL_LABELS)
    bounds = [*map(str, BATCH_SIZES), "+Inf"]
    for one in counted:
        buckets = list(zip(bounds, accumulate(one.values[BATCHES:BATCH_SUM]), strict=True))
        family.add_metric(one.labels, buckets=buckets, sum_value=one.values[BATCH_SUM])
    return family


def _buckets(one: Counted, first: int) -> list[tuple[str, float]]:
    bounds = [*map(str, LATENCY_BUCKETS_SECONDS), "+Inf"]
    return list(zip(bounds, accumulate(one.values[first : first + NUM_BUCKETS]), strict=True))


def _add_levels(name: str, text: str, cell: int, levels: list[Counted]) -> Metric:
    """Add up over the processes; what is 0 everywhere and not loaded is left out."""
    sums: dict[Labels, float] = {}
    for one in levels:
        if one.values[LOADED]:
            sums[one.labels] = sums.get(one.labels, 0.0) + one.values[cell]
    family = GaugeMetricFamily(name, text, labels=MODEL_LABELS)
    for labels, value in sums.items():
        family.add_metric(labels, value)
    return family


def _age_of_checks(levels: list[Counted]) -> Metric:
    text = "Seconds since this version last answered its recorded examples right; of several processes the oldest"
    family = GaugeMetricFamily("foldserve_self_check_age_seconds", text, labels=MODEL_LABELS)
    oldest: dict[Labels, float] = {}
    for one in levels:
        if one.values[LOADED]:
            oldest[one.labels] = min(one.values[CHECKED_AT], oldest.get(one.labels, float("inf")))
    for labels, at in oldest.items():
        family.add_metric(labels, max(time.time() - at, 0.0))
    return family
