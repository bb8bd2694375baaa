"""The GPU benchmark, as far as it needs no GPU: statistics, plan, networks, table; and the ways that run on the CPU."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmarks import gpu
from benchmarks.errors import WrongAnswer
from benchmarks.gpu_kernels import Activity, kernel_us
from benchmarks.gpu_measuring import check_answer
from benchmarks.gpu_models import Subject, build_subject, fold, write_onnx
from benchmarks.gpu_plan import MODELS, NEEDED, WAYS, Plan, fit_plan, why_no_gpu, why_not_here
from benchmarks.gpu_report import BASELINE, SERVED, Findings, Floor, Measured, Report, Served, headlines, render
from benchmarks.gpu_service import time_service
from benchmarks.gpu_timing import Timing, summarise, take_turns
from benchmarks.gpu_ways import Material, prepare
from benchmarks.resnet50 import write_resnet50

ROOT = Path(__file__).parent.parent
# A fold in float64 whose weights are rounded once to float32: units of 6e-8, over three layers of sums or over 53.
FOLD_TOLERANCE = 1e-6
ON_THE_CPU = {"session.run", "IOBinding", "PyTorch eager"}


# --- without a GPU ---------------------------------------------------------------------------------------------------


def test_without_a_gpu_it_ends_with_one_plain_line(tmp_path: Path) -> None:
    if not why_no_gpu():
        pytest.skip("there is a GPU here")
    out = tmp_path / "gpu.md"
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith("benchmarks.gpu: no GPU can be measured here: PyTorch")
    assert not out.exists()


def test_without_pytorch_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("benchmarks.gpu_plan.importlib.util.find_spec", lambda _: None)
    assert gpu.main([]) == 1
    assert "PyTorch is not installed" in capsys.readouterr().err


def test_the_command_needs_neither_onnx_runtime_nor_fastapi_to_start() -> None:
    kept_out = {"onnx", "onnxruntime", "fastapi", "msgspec", "model_export", "service", "httpx", "rich"}
    modules = "benchmarks.gpu, benchmarks.gpu_measuring, benchmarks.gpu_models, benchmarks.gpu_ways"
    code = f"import sys, {modules}; print(sorted({kept_out!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


# --- the plan --------------------------------------------------------------------------------------------------------


def test_what_can_not_be_measured_is_left_out_with_its_reason() -> None:
    reasons = {"tensorrt": "no library", "service": "fastapi not installed"}
    feasible = fit_plan(Plan(), lambda runtime: reasons.get(runtime, ""))
    assert [way.name for way in feasible.ways] == [way.name for way in WAYS if way.runtime != "tensorrt"]
    assert not feasible.service
    assert [str(one) for one in feasible.left_out] == [
        "TensorRT: left out, no library",
        "the whole service: left out, fastapi not installed",
    ]


def test_ways_that_were_not_asked_for_are_not_measured() -> None:
    plan = Plan(ways=("PyTorch eager",), service=False)
    feasible = fit_plan(plan, lambda _: "")
    assert [way.name for way in feasible.ways] == ["PyTorch eager"]
    assert not feasible.service


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = {"fastapi": None}
    monkeypatch.setattr("benchmarks.gpu_plan.importlib.util.find_spec", lambda name: find.get(name, name))
    assert why_not_here("service") == "fastapi not installed"
    assert why_not_here("torch") == ""
    assert {way.runtime for way in WAYS} | {"service"} == set(NEEDED)


# --- statistics ------------------------------------------------------------------------------------------------------


def test_the_99th_percentile_is_the_smallest_that_99_of_100_do_not_exceed() -> None:
    timing = summarise([value * 1e-6 for value in range(1, 201)])
    assert timing.median == pytest.approx(100.5)
    assert timing.p99 == pytest.approx(198.0)
    assert timing.count == 200


@given(st.lists(st.floats(1e-7, 10), min_size=1, max_size=300))
def test_at_least_99_of_100_runs_are_no_longer_than_p99_and_it_is_one_of_them(seconds: list[float]) -> None:
    timing = summarise(seconds)
    in_us = [1e6 * value for value in seconds]
    assert timing.p99 in in_us
    assert sum(value <= timing.p99 for value in in_us) >= math.floor(0.99 * len(in_us))
    assert timing.median <= timing.p99


def test_all_take_turns_and_another_one_begins_each_round() -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "abc"}
    timings = take_turns(runs, rounds=3, seconds=0.0)
    turns = [name for name, _ in itertools.groupby(order)]
    assert turns == [*"abc", *"abc", *"bca", *"cab"]  # warming up, then the rounds
    assert {timing.count for timing in timings.values()} == {9}


def test_the_time_of_kernels_leaves_copies_out() -> None:
    recorded = [Activity("sgemm", 30.0), Activity("Memcpy HtoD (Pinned -> Device)", 500.0), Activity("elu", 10.0)]
    assert kernel_us(recorded, 4) == 10.0
    assert kernel_us([Activity("Memset (Device)", 1.0)], 4) is None


# --- the networks ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subjects() -> dict[str, Subject]:
    return {name: build_subject(name) for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_the_folded_network_answers_as_the_one_with_its_batchnorms(subjects: dict[str, Subject], name: str) -> None:
    subject = subjects[name]
    assert sum("BatchNorm" in type(layer).__name__ for layer in subject.folded.modules()) == 0
    shape = (3, 64, 64) if name == "resnet50" else subject.instance_shape  # the fold knows channels, not sizes
    instances = torch.rand((2, *shape), generator=torch.Generator().manual_seed(3)).double()
    network, folded = (copy.deepcopy(one).double() for one in (subject.network, subject.folded))
    with torch.inference_mode():
        expected, found = network(instances), folded(instances)
    assert float((found - expected).abs().max() / expected.abs().max()) < FOLD_TOLERANCE


def test_a_batchnorm_that_nobody_takes_is_an_error() -> None:
    with pytest.raises(ValueError, match="a BatchNorm is left"):
        fold(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()).eval())


def test_resnet50_is_the_one_of_the_other_benchmark(subjects: dict[str, Subject], tmp_path: Path) -> None:
    """Written node by node there: as many Convs, as many weights."""
    write_resnet50(tmp_path / "resnet50.onnx")
    graph = onnx.load(tmp_path / "resnet50.onnx").graph
    network = subjects["resnet50"].network
    tensors = [*network.parameters(), *(one for one in network.buffers() if one.ndim)]
    assert sum(map(torch.Tensor.numel, tensors)) == sum(math.prod(one.dims) for one in graph.initializer)
    convs = sum(isinstance(layer, nn.Conv2d) for layer in network.modules())
    assert convs == sum(node.op_type == "Conv" for node in graph.node) == 53


# --- the ways, as far as they run on the CPU -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report() -> Report:
    """The whole benchmark on the book's network, where a GPU's place is taken by the CPU."""
    ways = tuple(way.name for way in WAYS if way.name in ON_THE_CPU)
    plan = Plan(models=("book784",), batches=(1, 3), ways=ways, rounds=2, seconds=1e-4, service=False)
    return gpu.measure(plan, why_not=lambda _: "", device="cpu")


def test_each_way_is_checked_and_timed_with_batchnorm_and_folded_at_each_batch(report: Report) -> None:
    keys = {(one.way, one.batch, one.folded) for one in report.found.measured}
    assert keys == set(itertools.product(ON_THE_CPU, (1, 3), (False, True)))
    assert all(0 < one.timing.median <= one.timing.p99 for one in report.found.measured)
    assert report.found.left_out[0].what == "the whole service"


def test_a_way_that_fails_is_left_out_and_the_others_go_on() -> None:
    plan = Plan(
        models=("convnet",), batches=(1,), ways=("PyTorch eager", "IOBinding"), rounds=1, seconds=0, service=False
    )
    only_torch = gpu.measure(plan, why_not=lambda runtime: "" if runtime == "torch" else "not here", device="cpu")
    assert {one.way for one in only_torch.found.measured} == {"PyTorch eager"}
    subject = build_subject("convnet")
    with pytest.raises(ValueError, match="needs an ONNX file"):
        prepare("IOBinding", Material(subject.network, None, np.zeros((1, 1, 28, 28), np.float32), "cpu"))


def test_a_wrong_answer_ends_the_run() -> None:
    logits = np.array([[1.0, -2.0]])
    check_answer("a way", logits * (1 + 1e-5), logits)
    for wrong in (logits * (1 + 1e-3), logits * np.nan):
        with pytest.raises(WrongAnswer, match="a way: a logit is"):
            check_answer("a way", wrong, logits)


def test_the_whole_service_is_asked_by_one_connection(subjects: dict[str, Subject], tmp_path: Path) -> None:
    path = write_onnx(subjects["convnet"], tmp_path)[True]
    instance = np.random.default_rng(0).random((1, 28, 28), dtype=np.float32)
    timings = time_service(path, instance, device="cpu", rounds=1, seconds=0.01)
    assert set(timings) == {"service", "floor"}
    assert min(timing.count for timing in timings.values()) >= 3


# --- the report ------------------------------------------------------------------------------------------------------


def timing(median: float) -> Timing:
    return Timing(median=median, p99=2 * median, count=10)


def made_up(way: str, median: float, *, folded: bool = True, kernels: float | None = None) -> Measured:
    return Measured(model="book784", batch=1, way=way, folded=folded, timing=timing(median), kernels=kernels)


@pytest.fixture
def found() -> Findings:
    return Findings(
        measured=(made_up(BASELINE, 100), made_up(SERVED, 40, kernels=10), made_up(SERVED, 60, folded=False)),
        floors=(Floor(model="book784", batch=1, timing=timing(12)),),
        served=(Served(model="book784", service=timing(150), floor=timing(90)),),
    )


def a_report(found: Findings) -> Report:
    return Report(machine={"GPU": "made up"}, plan=Plan(models=("book784",), batches=(1,)), found=found)


def test_the_goals_are_judged_by_the_numbers(found: Findings) -> None:
    assert headlines(a_report(found)) == [
        f"book784, batch 1: {SERVED} is 2.50 times as fast as {BASELINE} (goal 2: met)",
        "book784: the service answers in 150 µs, 1.15 times the floor and the run together, 130 µs (goal 1.5: met)",
    ]
    slower = replace(found, measured=(made_up(BASELINE, 100), made_up(SERVED, 60)))
    assert headlines(a_report(slower))[0].endswith("1.67 times as fast as session.run (goal 2: not met)")


def test_the_table_shows_medians_tails_the_kernels_share_and_what_folding_gives(found: Findings) -> None:
    text = render(a_report(found))
    assert "| IOBinding + graph + pinned | 60.0 | 120.0 | – | 40.0 | 80.0 | 25 % | 1.50 |" in text
    assert "| floor | 12.0 | 24.0 | – | – | – | – | – |" in text
    assert "| book784 | 150 | 300 | 90 |" in text
    assert "Left out" not in text


def test_what_was_left_out_stands_in_the_report(report: Report) -> None:
    text = render(report)
    assert "- the whole service: left out, not asked for" in text
    assert text.count("## book784, batch") == 2
