"""Which BatchNorms are folded is the caller's choice; one that is to be kept stays, and no neighbour takes it along."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from model_export.errors import FoldInvalid
from model_export.fold import fold
from model_export.fold.selection import Selection
from tests.model_export.fold.graphs import GraphBuilder, assert_same_answers


def _three_layers() -> ir.Model:
    b = GraphBuilder(np.random.default_rng(0))
    value = "x"
    for name in ("layer1.bn", "layer2.bn", "head.bn"):
        value = b.node("Elu", [b.batchnorm(b.gemm(value, 4, 4, f"{name}.dense"), 4, name)], f"{name}.elu")
    return b.model((4,), [value])


def _kept(selection: Selection, model: ir.Model) -> list[str]:
    folded = fold(model, selection)
    assert_same_answers(model, folded.model, np.random.default_rng(1).normal(size=(3, 4)))
    return [entry.batchnorm for entry in folded.report.entries if entry.outcome == "kept"]


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (Selection(), []),
        (Selection(keep=("layer*",)), ["layer1.bn", "layer2.bn"]),
        (Selection(keep=("layer1.bn", "head.*")), ["layer1.bn", "head.bn"]),
        (Selection(only=("layer?.bn",)), ["head.bn"]),
        (Selection(only=("layer*", "head.bn")), []),
        (Selection(keep=("layer1*",), only=("layer*",)), ["layer1.bn", "head.bn"]),
        (Selection(keep=("*",)), ["layer1.bn", "layer2.bn", "head.bn"]),
    ],
)
def test_patterns_choose_what_is_folded_and_keep_wins(selection: Selection, kept: list[str]) -> None:
    assert _kept(selection, _three_layers()) == kept


def test_a_batchnorm_that_is_to_be_kept_says_by_which_pattern() -> None:
    entries = fold(_three_layers(), Selection(keep=("layer1.*",))).report.entries
    assert entries[0].reason == "it is to be kept: --keep layer1.*"
    entries = fold(_three_layers(), Selection(only=("layer1.*", "layer2.*"))).report.entries
    assert entries[2].reason == "it is to be kept: not in --only layer1.* layer2.*"


@pytest.mark.parametrize("selection", [Selection(keep=("laier*",)), Selection(only=("layer1.bn", "laier*"))])
def test_a_pattern_that_names_nothing_is_an_error_that_names_what_there_is(selection: Selection) -> None:
    with pytest.raises(FoldInvalid, match=r"no BatchNorm is called laier\*; the model has layer1\.bn, layer2\.bn"):
        fold(_three_layers(), selection)


def test_a_pattern_is_an_error_in_a_model_without_batchnorms() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    with pytest.raises(FoldInvalid, match="the model has none"):
        fold(b.model((4,), [b.gemm("x", 4, 3, "dense")]), Selection(only=("bn",)))


def test_capital_letters_count_in_patterns() -> None:
    with pytest.raises(FoldInvalid, match="LAYER1"):
        fold(_three_layers(), Selection(keep=("LAYER1*",)))


def test_a_kept_batchnorm_stands_in_the_way_of_its_neighbour() -> None:
    """The second could only go into the layer together with the first."""
    b = GraphBuilder(np.random.default_rng(0))
    output = b.batchnorm(b.batchnorm(b.gemm("x", 4, 4, "dense"), 4, "first"), 4, "second")
    model = b.model((4,), [output])
    assert _kept(Selection(keep=("first",)), model) == ["first", "second"]
    assert _kept(Selection(keep=("second",)), model) == ["second"]
