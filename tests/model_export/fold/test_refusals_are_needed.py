"""Every refusal of the engine, switched off: the fold that it stops would be wrong, or could not even be made.

The oracle is onnx.reference in float64. An exact fold differs by 1e-14 there; what is called wrong differs by 1 %.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from model_export.fold import _copy, absorb, batchnorm, carry, layout, merge, parallel, pointwise, scope
from model_export.fold.absorb import channels, convolution, embedding, gemm, matmul, recurrent, transposed
from model_export.fold.apply import Names, apply_edit
from model_export.fold.carry import activations, arithmetic, joining, pooling, rearranging
from model_export.fold.edit import Edit
from model_export.fold.engine import RULES
from model_export.fold.ledger import Refused
from model_export.fold.nodes import name_of
from model_export.fold.prove import prove
from model_export.fold.scope import Scope, scopes_of
from model_export.fold.shapes import prove_shapes
from model_export.fold.subjects import find_candidates
from tests.model_export.fold import refusals_of_absorb, refusals_of_carry, refusals_of_the_rest
from tests.model_export.fold.guards import refusals_of
from tests.model_export.fold.refusal_cases import CASES, Case

WRONG = 1e-2  # relative to the largest output
ROOMS = (
    carry, activations, arithmetic, joining, pooling, rearranging, absorb, channels, convolution, embedding, gemm,
    matmul, recurrent, transposed, layout, merge, parallel, batchnorm, pointwise, scope,
)  # fmt: skip
FILES = (refusals_of_absorb, refusals_of_carry, refusals_of_the_rest)

# Refusals that no valid model meets, or that are no matter of right and wrong.
OUT_OF_REACH = {
    ("carry.arithmetic.fits", "an input is missing"): "a sum or product without an input has no shape either",
    ("carry.joining._ranges", "does not say where"): "a Slice without starts has no shape either",
    ("carry.joining._only_data", "as its data"): "the other inputs of Slice and Split are whole numbers",
    ("carry.pooling._forward", "as its data"): "the axes of a reduction are whole numbers",
    ("carry.pooling._backward", "second output"): "the second output of a MaxPool is whole numbers",
    ("carry.rearranging._permutation", "axes of"): "a valid Transpose names all axes; see test_random_networks.py",
    ("absorb.matmul._read", "inputs, expected 2"): "the standard demands two; see test_refusals.py",
    ("absorb.matmul.add_diagonal", "other outputs than inputs"): "what has the shape of its input has as many outputs",
    ("parallel._plus_diagonal", "other outputs than inputs"): "what has the shape of its input has as many outputs",
    ("batchnorm.read_batchnorm", "no input or no output"): "the standard demands both",
    ("batchnorm._arrays", "its parameters have shapes"): "the standard demands one value a channel",
    ("pointwise.read_pointwise", "scope.reserved"): "somebody wants the node kept: test_selection.py",
    ("pointwise._input", "has no input"): "the standard demands one",
}  # fmt: skip


def _plan(case: Case, model: ir.Model) -> tuple[Edit, Scope]:
    """The edit that the rule plans for the subject."""
    for each in scopes_of(model, prove_shapes(model)):
        for edit in _edits(case, each):
            return edit, each
    raise Refused(f"there is no BatchNorm {case.subject} to be seen")


def _edits(case: Case, each: Scope) -> Iterator[Edit]:
    nodes = {name_of(node): node for node in each.graph}
    if case.rule == "join":
        yield parallel.merge_convolutions(nodes[case.subject], each)[0]
    elif case.rule == "merge":
        yield merge.merge_with_neighbour(nodes[case.subject], each).edit
    else:
        for candidate in find_candidates(each):
            if candidate.subject.name == case.subject:
                yield RULES[case.rule](candidate, candidate.affine(each), each)


def _feeds(case: Case, model: ir.Model) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(1)
    feeds: dict[str, NDArray[Any]] = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        sizes = tuple(n if isinstance(n, int) else case.sizes.get(n.value or "", 3) for n in value.shape)
        whole = value.dtype == ir.DataType.INT64
        feeds[str(value.name)] = rng.integers(0, 4, size=sizes) if whole else rng.normal(size=sizes)
    return feeds


def _answers(case: Case, model: ir.Model, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    model = model if case.meaning is None else case.meaning(model)
    old: list[Any] = [Add, Mul] if model.opset_imports[""] < 7 else []
    oracle = ReferenceEvaluator(ir.to_proto(model), new_ops=[Pad, *old])
    return [np.asarray(each) for each in oracle.run(None, dict(feeds))]


class Pad(OpRun):
    """Pad with zeros; unlike onnx.reference, it also cuts off where pads are negative."""

    op_domain = ""

    def _run(self, data: Any, pads: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        pairs = list(zip(pads[: data.ndim], pads[data.ndim :], strict=True))
        wide = np.pad(data, [(max(front, 0), max(back, 0)) for front, back in pairs])
        ends = [(max(-front, 0), n - max(-back, 0)) for n, (front, back) in zip(wide.shape, pairs, strict=True)]
        return (wide[tuple(slice(*each) for each in ends)],)


def _laid_by_old_rules(a: NDArray[Any], b: NDArray[Any], axis: int | None, broadcast: int | None) -> NDArray[Any]:
    """Before opset 7, `b` has the shape of `a`, or, if asked for, of some of its axes, from `axis`."""
    first = a.ndim - b.ndim if axis is None else axis
    if not broadcast and a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} differ")
    if a.shape[first : first + b.ndim] != b.shape:
        raise ValueError(f"{b.shape} does not lie along axis {first} of {a.shape}")
    return b.reshape(b.shape + (1,) * (a.ndim - first - b.ndim))


class Add(OpRun):
    """Add of opset 6, which onnx.reference takes for the one of opset 7."""

    op_domain = ""

    def _run(self, a: Any, b: Any, axis: int | None = None, broadcast: int | None = None, **_: Any) -> tuple[Any, ...]:
        return (a + _laid_by_old_rules(a, b, axis, broadcast),)


class Mul(OpRun):
    """Mul of opset 6, likewise."""

    op_domain = ""

    def _run(self, a: Any, b: Any, axis: int | None = None, broadcast: int | None = None, **_: Any) -> tuple[Any, ...]:
        return (a * _laid_by_old_rules(a, b, axis, broadcast),)


def _difference(case: Case, before: ir.Model, after: ir.Model) -> float:
    """The largest over the outputs, each relative to its largest element; infinite where it does not run."""
    feeds = _feeds(case, before)
    expected = _answers(case, before, feeds)
    try:
        found = _answers(case, after, feeds)
    except Exception:  # noqa: BLE001 - however it fails
        return np.inf
    pairs = zip(expected, found, strict=True)
    return max(np.inf if a.shape != b.shape else float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


def _is_wrong(difference: float) -> bool:
    """NaN is wrong too."""
    return not difference < WRONG


@pytest.fixture(autouse=True)
def _without_warnings_of_what_is_not_finite() -> Iterator[None]:
    """Infinite parameters are among the cases."""
    with np.errstate(all="ignore"):
        yield


MADE = [case for case in CASES if case.without not in {"crash", "twice"}]
by_case = pytest.mark.parametrize("case", CASES, ids=str)
by_case_that_would_be_folded = pytest.mark.parametrize("case", MADE, ids=str)


def _reason(case: Case, model: ir.Model) -> str:
    with pytest.raises(Refused) as caught:
        prove(*_plan(case, _copy(model)))
    return str(caught.value)


@by_case
def test_a_guard_stops_the_fold(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is this guard: without it, something else happens."""
    model = case.model()
    reason = _reason(case, model)
    case.take_out(monkeypatch)
    if case.without == "twice":
        assert _reason(case, model) != reason
    elif case.without == "crash":
        with pytest.raises(Exception) as caught:  # noqa: PT011 - any traceback is one too many
            prove(*_plan(case, _copy(model)))
        assert not isinstance(caught.value, Refused)
    else:
        _plan(case, _copy(model))


@by_case_that_would_be_folded
def test_without_the_guard_the_answers_would_be_others(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.take_out(monkeypatch)
    before = case.model()
    after = _copy(before)
    _apply(case, after)
    assert _is_wrong(_difference(case, before, after))


def _apply(case: Case, model: ir.Model) -> None:
    """Where the edit can not even be carried out the model is left as no runtime will take it."""
    edit, where = _plan(case, model)
    with contextlib.suppress(ValueError, KeyError):
        apply_edit(edit, where, Names(model))


@by_case_that_would_be_folded
def test_without_the_guard_the_check_in_float64_would_see_it_or_not_as_the_case_says(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.take_out(monkeypatch)
    edit, where = _plan(case, case.model())
    if case.without == "unseen":
        prove(edit, where)
        return
    with pytest.raises(Refused) as caught:
        prove(edit, where)
    measured = re.search(r"measured a difference of (\S+):", str(caught.value))
    if case.without == "uncheckable":
        assert "can not be checked" in str(caught.value)
    else:
        assert measured, caught.value
        assert _is_wrong(float(measured[1]))


def test_every_refusal_of_these_rooms_has_a_case_or_a_reason_for_none() -> None:
    known = [(case.guard.site, case.guard.words) for case in CASES] + list(OUT_OF_REACH)
    missing = [
        (site, text)
        for room in ROOMS
        for site, text in refusals_of(room)
        if not any(place == site and words in text for place, words in known)
    ]
    assert missing == []


def test_no_reason_is_given_for_a_refusal_that_is_gone() -> None:
    sites = [refusal for room in ROOMS for refusal in refusals_of(room)]
    idle = [(place, words) for place, words in OUT_OF_REACH if not any(place == s and words in t for s, t in sites)]
    assert idle == []
