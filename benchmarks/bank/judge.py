"""The judge: is what a tool made of a case a model, does it answer rightly, and are the BatchNorms gone?

Right is what onnx.reference computes from the raw model in float64. ONNX Runtime runs the tools' models without its own
optimisations, so that no tool answers for another; ONNX Runtime itself is judged by the raw model at its default level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from benchmarks.bank.case import Case
from benchmarks.bank.errors import NotComparable
from benchmarks.bank.graph import make_feeds
from benchmarks.bank.oracle import Values, answers
from benchmarks.bank.tools import ONNX_RUNTIME, Tool, quiet_options
from service.runtime import ort

Verdict = Literal["folded", "left", "wrong", "invalid", "unjudged"]
Arrays = list[NDArray[Any]]
Run = Callable[[onnx.ModelProto, Values], Arrays]

# Relative to the largest number of an output. A dtype rounds; a wrong fold is off by some per cent at least.
CLOSE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 0.1}
WRONG = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 0.3}


@dataclass(frozen=True)
class Judgement:
    """A verdict, how many nodes are left that compute from the inputs, and what went wrong, if anything did."""

    verdict: Verdict
    num_nodes: int
    detail: str = ""


@dataclass(frozen=True)
class Trial:
    """One variant of a case: the raw model, and the right answers to some inputs."""

    case: Case
    raw: onnx.ModelProto
    questions: tuple[tuple[Values, Arrays], ...]

    @property
    def dtype(self) -> str:
        """What the raw model computes in."""
        return self.case.dtype or "float32"


def make_trial(case: Case, *, square: bool) -> Trial:
    """Ask the oracle, in float64 where the case is about no dtype of its own."""
    raw, wide = (case.variant(square=square, dtype=dtype) for dtype in ("float32", "float64"))
    questions = []
    for batch in case.batches:
        feeds = make_feeds(raw, batch=batch)
        questions.append((feeds, answers(wide, make_feeds(wide, batch=batch))))
    return Trial(case, raw, tuple(questions))


def judge(trial: Trial, tool: Tool) -> Judgement:
    """Let the tool have the model, and look at what comes back.

    Raises:
        NotComparable: the raw model itself does not run, or is far from the oracle: then nobody can be judged.
    """
    run = run_unoptimised if trial.case.runs_in_runtime else answers
    _check_comparable(trial, run)
    if tool.name == ONNX_RUNTIME and not trial.case.runs_in_runtime:
        return Judgement("unjudged", num_nodes(trial.raw), "does not run this on a CPU")
    given = onnx.ModelProto()
    given.CopyFrom(trial.raw)
    try:
        made = tool.optimise(given)
        if tool.name == ONNX_RUNTIME:
            return judge_model(trial, made, lambda _, feeds: run_optimised(trial.raw, feeds))
        onnx.checker.check_model(made)
        return judge_model(trial, made, run)
    except Exception as err:  # noqa: BLE001 - whatever a tool raises is its verdict
        return Judgement("invalid", num_nodes(trial.raw), f"{type(err).__name__}: {str(err).strip()[:200]}")


def judge_model(trial: Trial, made: onnx.ModelProto, run: Run) -> Judgement:
    """Compare answers, then count what is left; `run` may raise where the model can not be run."""
    error = worst_error(trial, made, run)
    if not error <= WRONG[trial.dtype]:
        return Judgement("wrong", num_nodes(made), f"off by {error:.1e} of the largest output")
    return Judgement("folded" if is_folded(trial, made) else "left", num_nodes(made))


def is_folded(trial: Trial, made: onnx.ModelProto) -> bool:
    """No BatchNorm is left but those that an exact fold leaves, and they were not replaced by more of other nodes.

    In a trap: fewer BatchNorms than that are left.
    """
    ops, allowed = count_ops(made), trial.case.num_kept - (0 if trial.case.foldable else 1)
    few = ops["BatchNormalization"] <= allowed and num_nodes(made) <= num_nodes(trial.raw)
    return few and all(ops[op] <= number for op, number in trial.case.ops.items())


def worst_error(trial: Trial, model: onnx.ModelProto, run: Run) -> float:
    """The largest difference to the oracle, relative to the largest number of the output; inf where shapes differ."""
    errors = [
        _relative_error(expected, found)
        for feeds, right in trial.questions
        for expected, found in zip(right, run(model, feeds), strict=True)
    ]
    return max(errors)


def _relative_error(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Where the oracle's number is not finite, the other's must not be either; which of inf and NaN does not matter."""
    if expected.shape != found.shape:
        return np.inf
    wide, other = (np.asarray(each).astype(np.float64) for each in (expected, found))
    finite = np.isfinite(wide)
    if not np.array_equal(finite, np.isfinite(other)):
        return np.inf
    return float(np.abs(wide[finite] - other[finite]).max(initial=0) / np.abs(wide[finite]).max(initial=1e-3))


def _check_comparable(trial: Trial, run: Run) -> None:
    """The raw model must run and be right, else no difference means anything."""
    try:
        error = worst_error(trial, trial.raw, run)
    except Exception as err:
        raise NotComparable(f"{trial.case.name}: the raw model does not run: {err}") from err
    if not error <= CLOSE[trial.dtype]:
        raise NotComparable(f"{trial.case.name}: the raw model is off by {error:.1e} without any optimisation")


# --- running ---------------------------------------------------------------------------------------------------------


def run_unoptimised(model: onnx.ModelProto, feeds: Values) -> Arrays:
    """ONNX Runtime without its optimisations."""
    return _run(model, feeds, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)


def run_optimised(model: onnx.ModelProto, feeds: Values) -> Arrays:
    """ONNX Runtime as it runs by default."""
    return _run(model, feeds, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)


def _run(model: onnx.ModelProto, feeds: Values, level: ort.GraphOptimizationLevel) -> Arrays:
    session = ort.InferenceSession(model.SerializeToString(), quiet_options(level), providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, feeds)]


# --- counting --------------------------------------------------------------------------------------------------------


def count_ops(model: onnx.ModelProto) -> Counter[str]:
    """Nodes that compute something from the model's inputs, by kind, those of bodies and functions too."""
    inside = (node for function in model.functions for node in _flat(function.node) if node.op_type != "Constant")
    return Counter(node.op_type for node in [*_reading_data(model.graph), *inside])


def num_nodes(model: onnx.ModelProto) -> int:
    """How many they are altogether."""
    return count_ops(model).total()


def _reading_data(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the main graph that depend on what a caller must give, and all that their bodies compute."""
    weights = {weight.name for weight in graph.initializer}
    known = {value.name for value in graph.input if value.name not in weights}
    for node in graph.node:
        if known & ({*node.input} | _captured(node)):
            known.update(node.output)
            yield from _flat([node])


def _captured(node: onnx.NodeProto) -> set[str]:
    return {name for inner in _flat([node]) if inner is not node for name in inner.input}


def _flat(nodes: Any) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute) if attribute.type == onnx.AttributeProto.GRAPH else None
            if value is not None:
                yield from (inner for inner in _flat(value.node) if inner.op_type != "Constant")
