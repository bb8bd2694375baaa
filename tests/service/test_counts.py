"""What is counted in one process or in several, and is read from any of them."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.counts import Counted, Counts
from service.exposition import expose
from service.metrics import LATENCY_BUCKETS_SECONDS, Level, Metrics, Running
from service.protocols.answer import Answer, Times

spawn = multiprocessing.get_context("spawn")


def count_up(directory: Path, times: int) -> None:
    cells = Counts(3, directory).open(("m", "1"))
    for _ in range(times):
        cells[1] += 1


def test_processes_add_up_and_what_the_dead_have_counted_stays(tmp_path: Path) -> None:
    for times in (3, 4):
        process = spawn.Process(target=count_up, args=(tmp_path, times))
        process.start()
        process.join()
    counts = Counts(3, tmp_path)
    counts.open(("m", "1"))[1] += 10
    counts.open(("other", ""))[2] += 0.5
    assert sorted(counts.sums(), key=lambda counted: counted.labels) == [
        Counted(("m", "1"), (0.0, 17.0, 0.0)),
        Counted(("other", ""), (0.0, 0.0, 0.5)),
    ]


def test_who_starts_when_the_directory_has_been_tidied_away_makes_it_again(tmp_path: Path) -> None:
    counts = Counts(1, tmp_path / "gone" / "counts")
    counts.open(("m", "1"))[0] += 1
    assert counts.sums() == [Counted(("m", "1"), (1.0,))]
    shutil.rmtree(tmp_path / "gone")
    assert counts.sums() == [Counted(("m", "1"), (1.0,))]


def test_what_is_counted_after_the_directory_was_tidied_away_is_seen_by_others(tmp_path: Path) -> None:
    counts = Counts(1, tmp_path / "counts")
    counts.open(("m", "1"))
    shutil.rmtree(tmp_path / "counts")
    counts.open(("m", "2"))[0] += 1
    assert Counts(1, tmp_path / "counts").sums() == [Counted(("m", "2"), (1.0,))]


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_hundreds_of_versions_cost_a_handful_of_descriptors(tmp_path: Path) -> None:
    before = num_descriptors()
    counts = Counts(2, tmp_path)
    for version in range(200):
        counts.open(("m", str(version)))[1] += version
    assert num_descriptors() - before < 10
    read = {counted.labels[1]: counted.values for counted in Counts(2, tmp_path).sums()}
    assert read == {str(version): (0.0, float(version)) for version in range(200)}


def test_one_process_alone_needs_no_files() -> None:
    counts = Counts(2)
    counts.open(("m", "1"))[0] += 1
    counts.open(("m", "1"))[0] += 1
    assert counts.sums() == [Counted(("m", "1"), (2.0, 0.0))]


def read(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Read the numbers as Prometheus does, by name and the one label that is not the model's."""
    return {  # of what is refused before it comes to a model nothing is looked at here
        (sample.name, next((value for key, value in sample.labels.items() if key not in {"model", "version"}), "")): (
            sample.value
        )
        for family in text_string_to_metric_families(expose(metrics).decode())
        for sample in family.samples
        if sample.labels.get("model") != ""
    }


@given(seconds=st.lists(st.floats(1e-7, 100), max_size=30))
def test_the_latencies_are_a_histogram(seconds: list[float]) -> None:
    metrics = Metrics()
    model = metrics.for_model("m", "1")
    for one in seconds:
        model.record(Answer(200, b""), one)
    found = read(metrics)
    for bound in LATENCY_BUCKETS_SECONDS:
        assert found["foldserve_request_seconds_bucket", str(bound)] == sum(one <= bound for one in seconds)
    assert found["foldserve_request_seconds_count", ""] == len(seconds)
    np.testing.assert_allclose(found["foldserve_request_seconds_sum", ""], sum(seconds), rtol=1e-12)
    assert found["foldserve_requests_total", "200"] == len(seconds)


def test_the_stages_of_a_request_are_histograms_of_their_own() -> None:
    metrics = Metrics()
    times = Times(read=10.001, started=10.003, computed=10.006, written=10.010)
    metrics.for_model("m", "1").record(Answer(200, b"", times=times), 0.010, arrived=10.0)
    found = {
        sample.labels["stage"]: sample.value
        for family in text_string_to_metric_families(expose(metrics).decode())
        for sample in family.samples
        if sample.name == "foldserve_stage_seconds_sum" and sample.labels["model"] == "m"
    }
    assert found == pytest.approx({"parse": 0.001, "queue": 0.002, "infer": 0.003, "encode": 0.004}, rel=1e-9)


def test_batches_are_counted_by_their_size() -> None:
    metrics = Metrics()
    for size in (1, 1, 3, 64, 65):
        metrics.for_model("m", "1").record_batch(size)
    found = read(metrics)
    bounds = {"1": 2, "2": 2, "4": 3, "64": 4, "+Inf": 5}
    assert {bound: found["foldserve_batch_size_bucket", bound] for bound in bounds} == bounds
    assert found["foldserve_batch_size_sum", ""] == 134


def announce(metrics: Metrics, num_queued: int = 0) -> None:
    running = Running("cpu", "CPUExecutionProvider", lambda: None)
    metrics.announce("m", "1", running, Level(lambda: num_queued, lambda: num_queued + 1, time.time() - 60))


def serve_for_a_moment(directory: Path, num_queued: int, said: Any, leave: Any) -> None:
    metrics = Metrics(directory)
    announce(metrics, num_queued)
    metrics.refresh()
    said.set()
    leave.wait(30)


def test_what_waits_is_added_up_over_the_living_processes(tmp_path: Path) -> None:
    said, leave = spawn.Event(), spawn.Event()
    process = spawn.Process(target=serve_for_a_moment, args=(tmp_path, 5, said, leave))
    process.start()
    assert said.wait(30)
    metrics = Metrics(tmp_path)
    announce(metrics, 2)
    together = read(metrics)
    leave.set()
    process.join()
    alone = read(metrics)
    names = ("foldserve_queue_depth", "foldserve_in_flight", "foldserve_loaded")
    assert [together[name, ""] for name in names] == [7, 9, 2]
    assert [alone[name, ""] for name in names] == [2, 3, 1]
    assert alone["foldserve_self_check_age_seconds", ""] == pytest.approx(60, abs=20)


def test_a_version_that_is_let_go_has_no_levels() -> None:
    metrics = Metrics()
    announce(metrics)
    assert ("foldserve_loaded", "") in read(metrics)
    metrics.withdraw("m", "1")
    assert ("foldserve_loaded", "") not in read(metrics)


@pytest.mark.parametrize(("status", "reason"), [(422, "instance_invalid"), (500, "prediction_failed"), (599, "new")])
def test_failures_are_counted_by_status_and_reason(status: int, reason: str) -> None:
    metrics = Metrics()
    metrics.for_model("m", None).record(Answer(status, b"", reason), 0.1)
    found = read(metrics)
    known = status != 599
    assert found["foldserve_requests_total", str(status) if known else "other"] == 1
    assert found["foldserve_failures_total", reason if known else "other"] == 1
    assert found["foldserve_requests_total", "200"] == 0
