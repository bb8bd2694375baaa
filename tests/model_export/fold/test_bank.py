"""The bank: each pattern folds, each trap is left, in both variants; and the judge of the peers can say no.

The oracle is onnx.reference in float64, where an exact fold differs from the raw graph by rounding alone.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from benchmarks.bank import BANK, Case
from benchmarks.bank.draw import make_draw
from benchmarks.bank.graph import EPS, batchnorm_parameters, make_feeds
from benchmarks.bank.judge import CLOSE, count_ops, judge, make_trial, run_unoptimised, worst_error
from benchmarks.bank.oracle import Values, evaluate
from benchmarks.bank.run import run_tool
from benchmarks.bank.tools import Tool
from model_export.fold import FoldedModel, fold

EXACT = 1e-9  # relative to a value's largest number; float64 folds are right to 1e-14, wrong ones are off by 1e-2
NARROW = {"float16": 2e-2, "bfloat16": 2e-1}  # a few roundings of each dtype, relative to the largest number
VARIANTS = [(case, square) for case, square in product(BANK, (False, True))]
by_variant = pytest.mark.parametrize(
    ("case", "square"), VARIANTS, ids=[f"{case.name}-{'square' if square else 'sizes'}" for case, square in VARIANTS]
)


@cache
def _raw_and_folded(name: str, *, square: bool) -> tuple[onnx.ModelProto, FoldedModel]:
    case = next(case for case in BANK if case.name == name)
    raw = case.variant(square=square, dtype="float64")
    return raw, fold(ir.from_proto(raw))


@by_variant
def test_each_batchnorm_of_the_bank_ends_as_the_case_says(case: Case, square: bool) -> None:
    _, folded = _raw_and_folded(case.name, square=square)
    outcomes = {
        entry.batchnorm: entry.outcome for entry in folded.report.entries if entry.batchnorm not in case.perhaps
    }
    reasons = {entry.batchnorm: entry.reason for entry in folded.report.entries if entry.outcome == "kept"}
    if case.interchangeable:
        assert Counter(outcomes.values()) == Counter(case.expected.values()), reasons
    else:
        assert outcomes == case.expected, reasons
    for name, pattern in case.because.items():
        assert re.search(pattern, reasons[name]), reasons[name]


@by_variant
def test_the_folded_model_is_valid_and_holds_no_more_than_the_case_says(case: Case, square: bool) -> None:
    after = ir.to_proto(_raw_and_folded(case.name, square=square)[1].model)
    onnx.checker.check_model(after, full_check=True)
    ops = count_ops(after)
    assert ops["BatchNormalization"] == case.num_kept
    assert {op: ops[op] for op in case.ops} == case.ops


@by_variant
def test_the_folded_model_answers_as_the_raw_one(case: Case, square: bool) -> None:
    raw, after = _raw_and_folded(case.name, square=square)[0], _folded_proto(case.name, square=square)
    outputs = [output.name for output in raw.graph.output]
    assert [output.name for output in after.graph.output] == outputs
    for expected, found in _values(case, raw, after):
        for name in outputs:
            _assert_same(name, expected[name], found[name], _tolerance(case))


@by_variant
def test_a_name_that_is_in_both_models_names_the_same_tensor(case: Case, square: bool) -> None:
    """Who probes a folded model by name finds what the name meant before. Weights keep their names, and change."""
    raw, after = _raw_and_folded(case.name, square=square)[0], _folded_proto(case.name, square=square)
    for expected, found in _values(case, raw, after):
        for name in (expected.keys() & found.keys()) - {weight.name for weight in after.graph.initializer}:
            _assert_same(name, expected[name], found[name], _tolerance(case))


def _folded_proto(name: str, *, square: bool) -> onnx.ModelProto:
    return ir.to_proto(_raw_and_folded(name, square=square)[1].model)


def _values(case: Case, *models: onnx.ModelProto) -> Iterator[list[Values]]:
    """Every value of each model by its name, at each batch size."""
    for batch in case.batches:
        feeds = make_feeds(models[0], batch=batch)
        yield [evaluate(model, feeds) for model in models]


def _tolerance(case: Case) -> float:
    return NARROW.get(case.dtype or "", EXACT)


def _assert_same(name: str, expected: NDArray[np.generic], found: NDArray[np.generic], tolerance: float) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
    wide, other = (np.asarray(each).astype(np.float64) for each in (expected, found))
    finite = np.isfinite(wide)
    assert np.array_equal(finite, np.isfinite(other)), name
    assert np.array_equal(wide[~finite], other[~finite], equal_nan=True), name
    bound = tolerance * max(1.0, np.abs(wide[finite]).max(initial=0.0))
    assert np.abs(wide[finite] - other[finite]).max(initial=0.0) <= bound, name


# --- the bank itself -------------------------------------------------------------------------------------------------


def test_every_case_has_a_name_of_its_own_and_says_what_it_is_in_a_sentence() -> None:
    assert len({case.name for case in BANK}) == len(BANK)
    assert [case.name for case in BANK if not case.what.endswith(".")] == []


@by_variant
def test_the_raw_model_is_valid_and_the_runtime_agrees_with_the_oracle(case: Case, square: bool) -> None:
    """Else a difference would say nothing about the tool."""
    trial = make_trial(case, square=square)
    onnx.checker.check_model(trial.raw, full_check=True)
    if case.runs_in_runtime:
        assert worst_error(trial, trial.raw, run_unoptimised) <= CLOSE[trial.dtype]


def test_a_batchnorm_that_only_scales_has_no_shift_at_all() -> None:
    """In float64, for float32 parameters, however the engine computes it."""
    draw = make_draw("any", square=False, dtype="float32")
    scale, offset, mean, var = (draw.rounded(v) for v in batchnorm_parameters(draw, 50, zero_shift=True).values())
    gain = scale.astype(np.float64) / np.sqrt(var.astype(np.float64) + EPS)
    assert np.array_equal(offset, mean * gain)


# --- the judge of the peers ------------------------------------------------------------------------------------------


def _tool(optimise: Callable[[onnx.ModelProto], onnx.ModelProto]) -> Tool:
    return Tool("a peer", "peer", "peer", "peer(model)", optimise)


def _verdict(case_name: str, optimise: Callable[[onnx.ModelProto], onnx.ModelProto]) -> str:
    case = next(case for case in BANK if case.name == case_name)
    return judge(make_trial(case, square=True), _tool(optimise)).verdict


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    return ir.to_proto(fold(ir.from_proto(model)).model)


def _scaled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Folded, but the first weight is 1 % too large."""
    folded = _folded(model)
    weight = folded.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    return folded


def _without_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.graph.node[:]
    return model


def _refusing(model: onnx.ModelProto) -> onnx.ModelProto:
    raise ValueError(f"a model with {len(model.graph.node)} nodes is too much")


def _spelled_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Folded, but with more nodes than before, which is no gain."""
    folded = _folded(model)
    last = folded.graph.node[-1]
    for index, op in enumerate(["Identity", "Neg", "Neg"]):
        folded.graph.node.append(helper.make_node(op, [last.output[0]], [f"more{index}"]))
        last = folded.graph.node[-1]
    folded.graph.output[0].name = last.output[0]
    return folded


@pytest.mark.parametrize(
    ("optimise", "verdict"),
    [
        (_folded, "folded"),
        (lambda model: model, "left"),
        (_spelled_out, "left"),
        (_scaled, "wrong"),
        (_without_nodes, "invalid"),
        (_refusing, "invalid"),
    ],
)
def test_the_judge_tells_right_from_wrong(optimise: Callable[[onnx.ModelProto], onnx.ModelProto], verdict: str) -> None:
    assert _verdict("gemm_then_batchnorm", optimise) == verdict


def test_in_a_trap_a_batchnorm_that_is_dropped_is_wrong_and_one_that_stays_is_left() -> None:
    def drop(model: onnx.ModelProto) -> onnx.ModelProto:
        node = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
        node.op_type = "Identity"
        del node.input[1:], node.attribute[:]
        return model

    assert _verdict("padded_conv", drop) == "wrong"
    assert _verdict("padded_conv", lambda model: model) == "left"


def test_nan_where_the_oracle_has_a_number_is_wrong() -> None:
    def spoil(model: onnx.ModelProto) -> onnx.ModelProto:
        folded = _folded(model)
        weight = folded.graph.initializer[0]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(np.nan), weight.name))
        return folded

    assert _verdict("gemm_then_batchnorm", spoil) == "wrong"


def test_a_crash_costs_one_variant_of_one_case() -> None:
    """A worker that judges what it is given until the second job, and dies there."""
    script = (
        "import json, os, sys\n"
        "for index, line in enumerate(sys.stdin):\n"
        "    case, sizes = line.split()\n"
        "    if sizes == 'square' and case == 'conv2d':\n"
        "        os.abort()\n"
        "    record = {'case': case, 'sizes': sizes, 'verdict': 'left', 'num_nodes': 2, 'detail': ''}\n"
        "    open(sys.argv[1], 'a').write(json.dumps(record) + '\\n')\n"
    )
    cases = [case for case in BANK if case.name in {"conv1d", "conv2d", "conv3d"}]
    outcomes = run_tool(_tool(_folded), cases, lambda _, path: [sys.executable, "-c", script, str(path)])
    assert {name: (o.different.verdict, o.square.verdict) for name, o in outcomes.items()} == {
        "conv1d": ("left", "left"),
        "conv2d": ("left", "invalid"),
        "conv3d": ("left", "left"),
    }
    assert "ended with" in outcomes["conv2d"].worst.detail
