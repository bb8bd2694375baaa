"""The story of one BatchNorm: its neighbours, and its most dangerous channel, computed here by hand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from model_export.errors import FoldInvalid
from model_export.fold import fold
from model_export.fold.explain import Explanation, explain
from tests.model_export.fold.graphs import GraphBuilder

A_FEW_ROUNDINGS = 1e-14  # relative, in float64


def _explained(b: GraphBuilder, output: str, name: str) -> Explanation:
    model: ir.Model = b.model((4,), [output])
    return explain(model, fold(model).report, name)


def _dense_and_batchnorm() -> tuple[GraphBuilder, str]:
    b = GraphBuilder(np.random.default_rng(0))
    normal = b.batchnorm(b.gemm("x", 4, 3, "dense"), 3, "bn", epsilon=0.25)
    b.constant("bn.scale", [1.0, -6.0, 2.0])
    b.constant("bn.offset", [0.0, 0.5, 0.0])
    b.constant("bn.mean", [1.0, 2.0, 3.0])
    b.constant("bn.var", [0.75, 2.0, 0.0])
    return b, b.node("Elu", [normal], "elu")


def test_the_worst_channel_is_that_of_the_largest_gain() -> None:
    """The gains are 1/√1, −6/√2.25 and 2/√0.25: the sign does not count, and equal ones are told by the first."""
    worst = _explained(*_dense_and_batchnorm(), "bn").worst
    assert worst is not None
    assert (worst.number, worst.gamma, worst.variance) == (1, -6.0, 2.0)
    assert worst.gain == pytest.approx(-4.0, rel=A_FEW_ROUNDINGS)
    assert worst.shift == pytest.approx(0.5 + 2.0 * 4.0, rel=A_FEW_ROUNDINGS)


def test_the_smallest_gain_and_the_number_of_channels_are_told() -> None:
    explanation = _explained(*_dense_and_batchnorm(), "bn")
    assert explanation.smallest_gain == pytest.approx(1.0, rel=A_FEW_ROUNDINGS)
    assert explanation.num_channels == 3


def test_the_neighbours_are_named_with_their_operators() -> None:
    explanation = _explained(*_dense_and_batchnorm(), "bn")
    assert (explanation.reads, explanation.read_by) == ("dense (Gemm)", ("elu (Elu)",))
    assert (explanation.entry.outcome, explanation.entry.into) == ("folded", ("dense",))


def test_what_reads_an_input_says_so() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    explanation = _explained(b, b.batchnorm("x", 4, "bn"), "bn")
    assert (explanation.reads, explanation.read_by) == ("x, an input", ())


def test_a_scale_and_a_shift_have_a_worst_channel_without_statistics() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    scaled = b.node("Mul", [b.gemm("x", 4, 3, "dense"), b.constant("s", [0.5, -3.0, 2.0])], "scale")
    worst = _explained(b, b.node("Add", [scaled, b.constant("t", [1.0, 2.0, 3.0])], "shift"), "scale").worst
    assert worst is not None
    assert (worst.number, worst.gamma, worst.variance, worst.gain, worst.shift) == (1, None, None, -3.0, 2.0)


def test_a_batchnorm_without_a_map_that_is_the_same_at_every_run_has_no_worst_channel() -> None:
    b = GraphBuilder(np.random.default_rng(0))
    explanation = _explained(b, b.batchnorm("x", 4, "bn", training_mode=1), "bn")
    assert (explanation.worst, explanation.num_channels, explanation.smallest_gain) == (None, 0, 0.0)
    assert "in training mode" in explanation.entry.reason


def test_a_name_that_is_not_there_is_an_error_that_names_what_is() -> None:
    with pytest.raises(FoldInvalid, match="no BatchNorm is called dense; the model has bn"):
        _explained(*_dense_and_batchnorm(), "dense")
