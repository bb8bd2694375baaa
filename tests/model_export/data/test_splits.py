"""Cutting data into splits, and what float32 can not hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_export.data.float32 import as_instances
from model_export.data.splits import DataSource, Labelled, Split, cut, stratify
from model_export.errors import DataInvalid


def numbered(labels: list[int]) -> Split:
    """Instances that are their own index, so that one sees where each went."""
    return Split(np.arange(len(labels), dtype=np.float32)[:, None], np.array(labels, dtype=np.int64))


@given(
    labels=st.lists(st.integers(0, 3), min_size=4, max_size=60),
    fraction=st.floats(0.05, 0.45),
    seed=st.integers(0, 2**32),
)
def test_stratify_loses_nothing_doubles_nothing_and_takes_the_share_of_each_class(
    labels: list[int], fraction: float, seed: int
) -> None:
    left, taken = stratify(numbered(labels), fraction=fraction, seed=seed)
    assert sorted([*left.instances[:, 0], *taken.instances[:, 0]]) == list(range(len(labels)))
    for label in set(labels):
        assert np.count_nonzero(taken.labels == label) == max(1, round(fraction * labels.count(label)))


def test_every_class_of_five_is_in_every_split() -> None:
    splits = cut(
        Labelled(name="five", everything=numbered([0] * 5 + [1] * 95), labels=("rare", "common")),
        DataSource(spec="five"),
    )
    assert all(set(part.labels) == {0, 1} for part in (splits.train, splits.valid, splits.test))


def test_a_class_with_too_few_instances_is_named() -> None:
    data = Labelled(name="few", everything=numbered([0] * 4 + [1] * 95), labels=("rare", "common"))
    with pytest.raises(DataInvalid, match=r"too few have: 'rare' \(4\)"):
        cut(data, DataSource(spec="few"))


def test_a_single_class_is_refused() -> None:
    data = Labelled(name="one", everything=numbered([0] * 20), labels=("only",))
    with pytest.raises(DataInvalid, match="expected two classes at least, found only"):
        cut(data, DataSource(spec="one"))


@pytest.mark.parametrize("changed", ["valid", "labels"])
def test_the_digest_sees_any_change(changed: str) -> None:
    labels = [0] * 10 + [1] * 10
    plain = Labelled(name="d", everything=numbered(labels), labels=("a", "b"))
    before = cut(plain, DataSource(spec="d"))
    if changed == "labels":
        other = Labelled(name="d", everything=plain.everything, labels=("a", "c"))
    else:
        instances = plain.everything.instances.copy()
        instances[int(before.valid.instances[0, 0])] += 0.5
        other = Labelled(name="d", everything=Split(instances, plain.everything.labels), labels=("a", "b"))
    assert cut(other, DataSource(spec="d")).sha256 != before.sha256


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([1.0, np.nan, np.inf]), "2 values are missing or infinite"),
        (np.array([1e39]), "beyond float32's range"),
        (np.array([2**24 + 1]), "whole numbers beyond ±16,777,216"),
        (np.array([-(2**63)]), "whole numbers beyond"),
        (np.array([2**64 - 1], dtype=np.uint64), "whole numbers beyond"),
        (np.array(["a"]), "expected numbers, found dtype"),
    ],
)
def test_what_float32_can_not_hold_is_refused(
    values: np.ndarray[tuple[int], np.dtype[np.float64]], message: str
) -> None:
    with pytest.raises(DataInvalid, match=f"column 'c'.*{message}"):
        as_instances(values, where="column 'c'")


def test_the_largest_exact_integers_pass() -> None:
    values = np.array([-(2**24), 2**24])
    assert as_instances(values, where="here").tolist() == values.tolist()


@pytest.mark.parametrize("fraction", [0.0, 0.5, float("nan")])
def test_a_split_of_nothing_or_of_half_is_refused(fraction: float) -> None:
    with pytest.raises(DataInvalid, match="test_fraction is"):
        DataSource(spec="digits", test_fraction=fraction)
