"""Reshapes: what is proved is right, whatever is hidden of the lengths; and what is known to be good is not refused."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from model_export.affine import Affine
from model_export.fold.layout import match_axes, reshape_affine
from model_export.fold.ledger import Refused
from model_export.fold.shapes import Length, Lengths

MAX_AXES = 5


@st.composite
def _factorings(draw: st.DrawFn, total: int) -> tuple[int, ...]:
    """A shape of so many elements, with ones in between."""
    lengths: list[int] = []
    while total > 1 and len(lengths) < MAX_AXES - 1:
        lengths.append(draw(st.sampled_from([k for k in range(2, total + 1) if total % k == 0])))
        total //= lengths[-1]
    lengths += [total] if total > 1 or not lengths else []
    for _ in range(draw(st.integers(0, 2))):
        lengths.insert(draw(st.integers(0, len(lengths))), 1)
    return tuple(lengths)


@st.composite
def _hidden(draw: st.DrawFn, shape: tuple[int, ...]) -> Lengths:
    """What is known of a shape: a length, a name that stands for it wherever it is used, or nothing."""
    kinds: list[Length] = [draw(st.sampled_from((n, n, f"n{n}", None))) for n in shape]
    return tuple(kinds)


@dataclass(frozen=True)
class Reshape:
    """Shapes before and after, what is known of them, and a map on the first."""

    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    known: tuple[Lengths, Lengths]
    affine: Affine


@st.composite
def reshapes(draw: st.DrawFn) -> Reshape:
    total = draw(st.sampled_from([1, 4, 6, 8, 12, 16, 24, 36]))
    before, after = draw(_factorings(total)), draw(_factorings(total))
    varying = tuple(draw(st.sampled_from((1, n))) for n in before)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale, shift = rng.normal(size=varying), rng.normal(size=varying)
    return Reshape((before, after), (draw(_hidden(before)), draw(_hidden(after))), Affine(scale, shift))


@given(reshapes())
def test_a_map_that_was_carried_over_a_reshape_is_the_same_on_every_element(drawn: Reshape) -> None:
    """Bit for bit: the same numbers meet. Where it is not proved it may be refused, but never wrong."""
    (before, after), affine = drawn.shapes, drawn.affine
    try:
        carried = reshape_affine(affine, *drawn.known, "Reshape")
    except Refused:
        event("refused")
        return
    event("carried")
    x = np.random.default_rng(0).normal(size=before)
    expected = (affine.scale * x + affine.shift).reshape(after)
    assert np.array_equal(carried.scale * x.reshape(after) + carried.shift, expected)


@given(reshapes())
def test_a_reshape_between_known_lengths_is_refused_only_where_the_map_has_no_single_place(drawn: Reshape) -> None:
    """With all lengths known, the map can always be written out."""
    carried = reshape_affine(drawn.affine, *drawn.shapes, "Reshape")
    assert all(n in {1, length} for n, length in zip(carried.shape, drawn.shapes[1], strict=True))


@given(reshapes())
def test_groups_hold_all_axes_in_order_and_as_many_elements_on_both_sides(drawn: Reshape) -> None:
    groups = match_axes(*drawn.known)
    assert sum((group.before for group in groups), ()) == drawn.known[0]
    assert sum((group.after for group in groups), ()) == drawn.known[1]
    for before, after in _true_lengths(drawn):
        assert math.prod(before) == math.prod(after)


def _true_lengths(drawn: Reshape) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    (before, after), pairs = drawn.shapes, []
    for group in match_axes(*drawn.known):
        pairs.append((before[: len(group.before)], after[: len(group.after)]))
        before, after = before[len(group.before) :], after[len(group.after) :]
    return pairs


# Before, after, the shape of a map before, and of the same map after.
GOOD: list[tuple[Lengths, Lengths, tuple[int, ...], tuple[int, ...]]] = [
    (("b", 3, 2, 2), ("b", 12), (1, 3, 1, 1), (1, 12)),  # Flatten
    ((None, 3, 4), (None, 12), (1, 3, 1), (1, 12)),  # of an unknown batch
    (("b", 3, "h", "w"), ("b", 3, None), (1, 3, 1, 1), (1, 3, 1)),  # space becomes a sequence
    (("b", 3, None), ("b", 3, None, None), (1, 3, 1), (1, 3, 1, 1)),  # and back
    (("b", "t", 4), (None, 4), (1, 1, 4), (1, 4)),  # tokens become a batch
    ((None, 4), ("b", "t", 4), (1, 4), (1, 1, 4)),  # and back
    (("b", 4), ("b", 4, 1, 1), (1, 4), (1, 4, 1, 1)),
    (("b", 4, 1, 1), ("b", 4), (1, 4, 1, 1), (1, 4)),
    (("b", 12), ("b", 3, 4), (1, 12), (1, 3, 4)),  # heads
    (("b", 12), ("b", 3, None), (1, 12), (1, 3, 4)),  # as many as remain
    (("b", 3, 4, "t"), ("b", 12, "t"), (1, 3, 4, 1), (1, 12, 1)),
    (("b", 3, 1, "t"), ("b", 3, "t"), (1, 3, 1, 1), (1, 3, 1)),
    ((1, 4), (4,), (1, 4), (4,)),
    ((4, 6), (2, 2, 6), (1, 6), (1, 1, 6)),
    (("n", 5), (None, 5), (1, 1), (1, 1)),  # what varies nowhere needs no proof
    ((None, None), (None, 7), (1, 1), (1, 1)),
]


@pytest.mark.parametrize(("before", "after", "shape", "expected"), GOOD)
def test_a_reshape_that_keeps_channels_together_is_carried(
    before: Lengths, after: Lengths, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    carried = reshape_affine(Affine(values, values), before, after, "Reshape")
    assert carried.shape == expected


# The sizes agree, and prove nothing.
BAD: list[tuple[Lengths, Lengths, tuple[int, ...]]] = [
    (("b", 4, 3), (None, 4), (1, 4, 1)),
    (("b", 4), (4, None), (1, 4)),
    (("b", 4, "t"), ("b", "t", 4), (1, 4, 1)),
    (("b", "c"), ("b", "c", 2), (1, 4)),
    ((None, 4, None), (None, 4, None), (1, 4, 1)),
]


@pytest.mark.parametrize(("before", "after", "shape"), BAD)
def test_a_reshape_that_is_not_proved_is_refused_and_says_what_is_known(
    before: Lengths, after: Lengths, shape: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    with pytest.raises(Refused, match=r"not proved to keep channels together") as caught:
        reshape_affine(Affine(values, values), before, after, "Reshape")
    assert f"from [{before[0] or '?'}, " in str(caught.value)


def test_a_map_that_does_not_differ_along_the_new_axes_has_length_1_there() -> None:
    """So that a later node which mixes those axes does not refuse it."""
    values = np.random.default_rng(0).normal(size=(1, 3, 1))
    carried = reshape_affine(Affine(values, values), ("b", 3, 4), ("b", 3, 2, 2), "Reshape")
    assert carried.shape == (1, 3, 1, 1)
