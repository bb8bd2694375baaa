"""Claims about the scores of classes, against counting by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest  # type: ignore[import-untyped]

from model_export.report.scores import most_confused, score, wilson_interval

# scipy computes the same closed form with its own quantile; a few roundings of float64.
FORMULA_TOLERANCE = 1e-12

PAIRS = st.integers(1, 6).flatmap(
    lambda k: st.tuples(st.just(k), st.lists(st.tuples(*[st.integers(0, k - 1)] * 2), min_size=1, max_size=60))
)


@given(PAIRS)
def test_scores_are_those_that_one_counts_by_hand(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    num_classes, pairs = drawn
    labels, predictions = np.array(pairs, dtype=np.int64).T
    scores = score(labels, predictions, num_classes=num_classes)
    assert scores.num_instances == len(pairs)
    assert scores.accuracy == sum(a == b for a, b in pairs) / len(pairs)
    for k in range(num_classes):
        hits, taken, there = (sum(pair in pairs_of for pair in pairs) for pairs_of in _sets(k, num_classes))
        expected = [ratio(hits, taken), ratio(hits, there), ratio(2 * hits, taken + there)]
        np.testing.assert_allclose([scores.precision[k], scores.recall[k], scores.f1[k]], expected, rtol=1e-15)
        assert scores.support[k] == there
        assert scores.confusion[k].tolist() == [pairs.count((k, p)) for p in range(num_classes)]


def _sets(k: int, num_classes: int) -> tuple[set[tuple[int, int]], ...]:
    """Right ones of class k, all that were taken for it, all that are of it."""
    return {(k, k)}, {(t, k) for t in range(num_classes)}, {(k, p) for p in range(num_classes)}


def ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def test_a_class_that_is_absent_and_never_predicted_has_no_scores() -> None:
    scores = score(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=3)
    assert np.isnan([scores.precision[2], scores.recall[2], scores.f1[2]]).all()


def test_the_most_confused_pair_comes_first_and_what_is_right_is_no_confusion() -> None:
    labels, predictions = np.array([0, 0, 0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 2, 1, 0, 0, 2])
    pairs = most_confused(score(labels, predictions, num_classes=3), most=2)
    assert [(pair.true, pair.predicted, pair.count, pair.share) for pair in pairs] == [(1, 0, 2, 2 / 3), (0, 1, 2, 0.5)]


@pytest.mark.parametrize(("num_right", "num_instances"), [(0, 1), (1, 1), (345, 359), (9999, 10000), (0, 50), (50, 50)])
def test_the_interval_is_wilson_s(num_right: int, num_instances: int) -> None:
    expected = binomtest(num_right, num_instances).proportion_ci(method="wilson")
    found = wilson_interval(num_right, num_instances)
    np.testing.assert_allclose(found, (expected.low, expected.high), atol=FORMULA_TOLERANCE)
