"""The benchmark's harness: what it starts answers rightly, what it reads and computes is right. No test is timed."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

from benchmarks import exact as exact_cost
from benchmarks import fold_speed
from benchmarks import training as training_speed
from benchmarks.cores import load_core, on_core, server_core
from benchmarks.errors import LoadFailed, PeerFailed, ToolMissing, WrongAnswer
from benchmarks.folding import FoldingGain, measure_folding
from benchmarks.load import HOW_TO_INSTALL, Measured, apply_load, check, find_wrk, read_output
from benchmarks.markdown import render
from benchmarks.models import SHAPES, BuiltModel, Shape, build_model
from benchmarks.report import Report
from benchmarks.requests import Requests, make_requests
from benchmarks.resnet50 import write_resnet50
from benchmarks.rounds import Plan, slots
from benchmarks.servers import (
    FLOOR,
    FOLDSERVE,
    PEERS,
    TUTORIAL,
    TUTORIAL_ONE_THREAD,
    answer_length,
    check_answers,
    command_of,
    running,
)
from benchmarks.summary import Window, summarise
from benchmarks.usage import Usage, read_usage
from model_export.data import DataSource, load_splits
from model_export.fold import fold
from model_export.options import TrainingOptions

SMALL = Shape(name="small", instance_shape=(2, 3), hidden=(5,), num_labels=3)
ANSWER_BYTES = 120
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason=HOW_TO_INSTALL)
needs_affinity = pytest.mark.skipif(server_core() is None, reason="needs two cores that a process can be kept on")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltModel:
    return build_model(SMALL, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def requests(built: BuiltModel) -> Requests:
    return make_requests(built, 8)


# --- the model -------------------------------------------------------------------------------------------------------


def test_the_networks_that_are_measured_are_the_books_and_one_of_thirty_features() -> None:
    assert [(shape.num_values, shape.hidden) for shape in SHAPES] == [(784, (300, 100)), (30, (64, 32))]
    assert SHAPES[0].describe() == ("Flatten → BN → Dense 300 → ELU → BN → Dense 100 → ELU → BN → Dense 10 → softmax")


def test_every_batchnorm_of_a_measured_model_is_folded(built: BuiltModel) -> None:
    entries = built.bundle.manifest.fold.entries
    assert [entry.outcome for entry in entries] == ["folded"] * 2


def test_requests_are_all_different_and_have_one_answer_each(requests: Requests) -> None:
    assert len(set(requests.bodies)) == 8
    assert requests.scores.shape == (8, 3)


def test_the_gain_of_folding_is_measured_on_both_graphs(built: BuiltModel) -> None:
    gain = measure_folding(built, num_blocks=2)
    assert gain.num_nodes_after == gain.num_nodes_before - 2
    assert min(gain.before_us, gain.after_us, gain.ratio) > 0


# --- the peers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", PEERS)
def test_each_peer_answers_what_onnxruntime_answers(peer: str, built: BuiltModel, requests: Requests) -> None:
    with running(peer, command_of(peer, built, ANSWER_BYTES)) as server:
        check_answers(server, requests, answer_bytes=ANSWER_BYTES)


def test_the_floor_answers_as_many_bytes_as_it_is_told_to(built: BuiltModel, requests: Requests) -> None:
    with running(FLOOR, command_of(FLOOR, built, ANSWER_BYTES)) as server:
        assert answer_length(server, requests) == ANSWER_BYTES


def test_a_wrong_answer_ends_the_run(built: BuiltModel, requests: Requests) -> None:
    shifted = replace(requests, scores=requests.scores + 0.01)
    with running(TUTORIAL, command_of(TUTORIAL, built, 0)) as server, pytest.raises(WrongAnswer, match="request 0"):
        check_answers(server, shifted, answer_bytes=0)


def test_a_peer_that_does_not_start_says_why() -> None:
    with pytest.raises(PeerFailed, match="ValueError"), running(FLOOR, ["benchmarks.peers.floor", "many"]):
        pass


@needs_affinity
def test_a_peer_runs_on_its_core_and_the_harness_is_free_again(built: BuiltModel) -> None:
    before = os.sched_getaffinity(0)
    core = server_core()
    with running(FLOOR, command_of(FLOOR, built, ANSWER_BYTES), core=core) as server:
        assert os.sched_getaffinity(server.process.pid) == {core}
        assert os.sched_getaffinity(0) == before
    assert core != load_core()


# --- the load --------------------------------------------------------------------------------------------------------

LINE = (
    '{"requests": 3000, "microseconds": 1500000, "p50": 410, "p99": 900, '
    '"errors": {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}}'
)


def test_the_scripts_line_is_read_behind_what_wrk_itself_writes() -> None:
    measured = read_output(f"Running 3s test @ http://…\n  1 threads and 16 connections\n{LINE}\n")
    assert (measured.requests_per_second, measured.p50, measured.p99) == (2000.0, 410, 900)


@pytest.mark.parametrize("output", ["", "Running 3s test", LINE[:-5]])
def test_output_without_the_scripts_line_is_refused(output: str) -> None:
    with pytest.raises(LoadFailed, match="last line"):
        read_output(output)


def test_one_error_is_too_many() -> None:
    with pytest.raises(LoadFailed, match="2 status"):
        check(read_output(LINE.replace('"status": 0', '"status": 2')))


def test_no_answer_at_all_is_an_error() -> None:
    with pytest.raises(LoadFailed, match="0 requests"):
        check(read_output(LINE.replace("3000", "0")))


def test_without_wrk_one_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolMissing, match="apt-get install wrk"):
        find_wrk()


@needs_wrk
def test_wrk_posts_requests_that_the_service_answers(built: BuiltModel, requests: Requests, tmp_path: Path) -> None:
    bodies = requests.write(tmp_path / "bodies.txt")
    with running(FOLDSERVE, command_of(FOLDSERVE, built, 0)) as server:
        measured = apply_load(server.url, bodies, connections=2, seconds=1)
    assert measured.requests > 0
    assert 0 < measured.p50 <= measured.p99


@needs_wrk
def test_a_server_that_refuses_ends_the_run(built: BuiltModel, tmp_path: Path) -> None:
    bodies = tmp_path / "bodies.txt"
    bodies.write_bytes(b'{"instance":[]}\n')
    with running(FOLDSERVE, command_of(FOLDSERVE, built, 0)) as server, pytest.raises(LoadFailed, match="status"):
        apply_load(server.url, bodies, connections=1, seconds=1)


# --- rounds, medians, ratios -----------------------------------------------------------------------------------------


def window(peer: str, number: int, rate: int, *, connections: int = 16, model: str = "small") -> Window:
    measured = Measured(requests=rate, microseconds=1_000_000, p50=10 * number, p99=100 * number, errors={})
    usage = Usage(clock=1.0, busy=1.5, server=0.5, ours=0.25)
    return Window(model=model, connections=connections, peer=peer, round=number, measured=measured, usage=usage)


RATES = {FOLDSERVE: (50, 10, 20), FLOOR: (100, 40, 80), TUTORIAL: (10, 1, 5), TUTORIAL_ONE_THREAD: (25, 5, 5)}
WINDOWS = tuple(
    window(peer, number, rate) for peer, rates in RATES.items() for number, rate in enumerate(rates, start=1)
)


def test_every_peer_is_measured_equally_often_in_every_round() -> None:
    plan = Plan(rounds=3, seconds=1, connections=(1, 16))
    planned = list(slots(plan))
    for number in range(1, 4):
        in_round = [slot for slot in planned if slot.round == number]
        assert sorted((slot.connections, slot.peer) for slot in in_round) == sorted(
            (connections, peer) for connections in (1, 16) for peer in PEERS
        )


def test_the_warm_up_is_under_the_most_connections() -> None:
    warm_up = [slot for slot in slots(Plan(connections=(16, 64, 1))) if slot.round == 0]
    assert [(slot.connections, slot.peer) for slot in warm_up] == [(64, peer) for peer in PEERS]


def test_each_round_starts_with_another_peer() -> None:
    firsts = [slot.peer for slot in slots(Plan(rounds=3, connections=(1,)))][:: len(PEERS)]
    assert sorted(firsts) == sorted(PEERS)


def test_a_row_is_the_median_over_rounds() -> None:
    row = summarise(WINDOWS)[-1]
    assert (row.peer, row.requests_per_second, row.p50, row.p99) == (FOLDSERVE, 20, 20, 200)
    assert row.spread == (50 - 10) / 20
    assert row.cpu == 0.5 / 20 * 1e6


def test_ratios_are_taken_within_a_round() -> None:
    row = summarise(WINDOWS)[-1]
    assert row.to_floor == 0.25  # of 0.5, 0.25 and 0.25
    assert row.to_tutorial == 5  # of 5, 10 and 4
    assert row.to_one_thread == 2  # of 2, 2 and 4


def test_rows_come_floor_first_whatever_the_order_of_the_windows() -> None:
    assert [row.peer for row in summarise(WINDOWS[::-1])] == list(PEERS)
    assert summarise(WINDOWS[::-1]) == summarise(WINDOWS)


def test_what_others_used_is_what_neither_server_nor_harness_did() -> None:
    assert Usage(clock=2.0, busy=3.0, server=1.0, ours=0.5).cores_of_others == 0.75


def test_the_counters_of_a_process_only_grow() -> None:
    before, after = read_usage(os.getpid()), read_usage(os.getpid())
    if before is None or after is None:
        pytest.skip("this system has no /proc/stat")
    assert after.clock > before.clock
    assert min(after.busy - before.busy, after.server - before.server, after.ours - before.ours) >= 0


@needs_affinity
def test_a_thread_is_on_its_core_for_the_time_of_a_block() -> None:
    before, core = os.sched_getaffinity(0), server_core()
    with on_core(core):
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before


# --- the report ------------------------------------------------------------------------------------------------------


def make_report() -> Report:
    more = tuple(replace(one, connections=1) for one in WINDOWS)
    return Report(
        date="2026-01-01",
        command="python -m benchmarks.serving",
        machine={"CPU": "one of ours, 2 cores"},
        shapes=(SMALL,),
        body_bytes={"small": 40},
        answer_bytes={"small": 100},
        windows=(*more, *WINDOWS),
        folding=(
            FoldingGain(model="small", num_nodes_before=9, num_nodes_after=6, before_us=5, after_us=4, ratio=1.25),
        ),
    )


def test_the_markdown_has_a_line_for_every_row_and_says_on_what_machine() -> None:
    text = render(make_report())
    lines = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.MULTILINE)
    assert lines == [(connections, peer) for connections in ("1", "16") for peer in PEERS]
    assert "| 16 | foldserve | 20 | 200% | 20 | 200 | 25,000 | 0.25 | 5.00 | 2.00 |" in text
    assert "| CPU | one of ours, 2 cores |" in text
    assert "| small | 9 → 6 | 5.0 | 4.0 | 1.25 |" in text


def test_the_headline_is_about_sixteen_connections() -> None:
    assert (
        "* small, one worker, 16 connections: 20 req/s, 5.0 times the tutorial's (2.0 times with its ONNX Runtime on "
        "one thread), 0.25 of the floor's." in render(make_report())
    )


def test_the_markdowns_tables_are_rectangular() -> None:
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", render(make_report()), re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_the_chain_that_is_timed_folds_away_all_its_batchnorms() -> None:
    folded = fold(fold_speed.chain(30))
    assert len(folded.report.entries) == 10
    assert {entry.outcome for entry in folded.report.entries} == {"folded"}


def test_the_resnet50_that_is_timed_has_its_weights_and_batchnorms(tmp_path: Path) -> None:
    write_resnet50(tmp_path / "resnet50.onnx")
    model = ir.load(tmp_path / "resnet50.onnx")
    counts = Counter(node.op_type for node in model.graph)
    assert (counts["Conv"], counts["BatchNormalization"]) == (53, fold_speed.NUM_RESNET_BATCHNORMS)
    weights = [value for name, value in model.graph.initializers.items() if "mean" not in name and "var" not in name]
    assert sum(math.prod(value.const_value.shape.numpy()) for value in weights if value.const_value) == 25_557_032


def test_the_report_on_the_folds_speed_tells_memory_in_sizes_of_the_model() -> None:
    small, large = fold_speed.Run(1.0, 100), fold_speed.Run(4.0, 400)
    report = fold_speed.Report((fold_speed.Scaling(50, 0.05),), 0.3, small, large, 150, 0.5)
    assert "it takes 2.00 times that" in fold_speed.render(report)
    assert "| 50 | 50 | 1000 |" in fold_speed.render(report)


def test_the_loop_by_hand_learns_what_it_is_timed_on() -> None:
    digits = load_splits(DataSource(spec="digits"))
    assert training_speed.train_by_hand(digits, TrainingOptions(epochs=6)) > 0.9


def test_both_trainings_are_timed_in_each_round_and_ratios_are_of_one_round() -> None:
    digits = load_splits(DataSource(spec="digits"))
    rounds = training_speed.measure(digits, rounds=1, epochs=1)
    assert [one.batch_size for one in rounds] == list(training_speed.BATCH_SIZES)
    assert all(one.ratio == one.foldserve / one.by_hand for one in rounds)
    made = tuple(
        training_speed.Round(batch_size=64, foldserve=foldserve, by_hand=by_hand)
        for foldserve, by_hand in ((90, 100), (1000, 2000), (60, 50))
    )
    assert "| 64 | 90 | 100 | 0.90 | 0.50 | 1.20 |" in training_speed.render(made)


def test_every_way_to_exact_statistics_is_timed_and_gives_the_same() -> None:
    subject = exact_cost.Subject("small", exact_cost.deep(layers=2, width=4), torch.randn(20, 1, 28, 28))
    cost = exact_cost.measure(subject, rounds=1)
    assert cost.ratios.keys() == exact_cost.WAYS.keys()
    found = [exact_cost.WAYS[way](subject) for way in ("in pieces", "without memory")]
    assert all(isinstance(statistics, dict) and len(statistics) == 3 for statistics in found)
    text = exact_cost.render((cost,), {"CPU": "a small one"})
    assert "| small | 3 |" in text
