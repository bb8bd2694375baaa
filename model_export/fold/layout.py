"""Which axes of a tensor become which when it is reshaped: proved from the lengths, or refused.

A reshape neither makes nor loses elements, and they keep their row-major order. So wherever the lengths behind a point
multiply to the same number before and after, the axes behind it hold the same elements, and likewise in front of it:
the axes fall into groups that match one to one. Inside a group an affine map that varies is written out and reshaped
like the data; that needs numbers for all lengths of the group. Equal sizes elsewhere prove nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from model_export.affine import Affine, Array
from model_export.fold.ledger import Refused
from model_export.fold.shapes import Length, Lengths


@dataclass(frozen=True)
class Group:
    """Neighbouring axes before the reshape that hold the same elements as neighbouring axes after it."""

    before: Lengths
    after: Lengths


def reshape_affine(affine: Affine, before: Lengths, after: Lengths, what: str) -> Affine:
    """The map on a value of lengths `before`, as a map on the same elements at lengths `after`.

    Raises:
        Refused: the lengths do not prove how the axes along which it varies are arranged; `what` names the reshape.
    """
    groups = match_axes(before, after)
    try:
        return affine.map(lambda values: _reshaped(values, groups)).compressed()
    except ValueError as err:
        raise Refused(
            f"{what}, from {_text(before)} to {_text(after)}, is not proved to keep channels together"
        ) from err


def match_axes(before: Lengths, after: Lengths) -> list[Group]:
    """The finest groups of axes that are proved to match, from the first axis to the last."""
    behind = _match_from_the_end(before, after)
    rest_before = before[: len(before) - sum(len(group.before) for group in behind)]
    rest_after = after[: len(after) - sum(len(group.after) for group in behind)]
    front = [_mirrored(group) for group in _match_from_the_end(rest_before[::-1], rest_after[::-1])]
    middle = Group(
        rest_before[sum(len(group.before) for group in front) :], rest_after[sum(len(group.after) for group in front) :]
    )
    return [*reversed(front), *([middle] if middle.before or middle.after else []), *behind]


def _match_from_the_end(before: Lengths, after: Lengths) -> list[Group]:
    """Groups that match, as far as lengths are known, in the order of the axes."""
    groups: list[Group] = []
    while group := _last_group(before, after):
        before, after = before[: len(before) - len(group.before)], after[: len(after) - len(group.after)]
        groups.insert(0, group)
    return groups


def _last_group(before: Lengths, after: Lengths) -> Group | None:
    last_before, last_after = (lengths[-1] if lengths else None for lengths in (before, after))
    if last_before is not None and last_before == last_after:
        return Group((last_before,), (last_after,))
    if last_before == 1:
        return Group((1,), ())
    if last_after == 1:
        return Group((), (1,))
    return _last_products(before, after)


def _last_products(before: Lengths, after: Lengths) -> Group | None:
    """The shortest ends of both whose lengths multiply to the same number."""
    num_before, num_after = 1, 1
    while num_before <= len(before) and num_after <= len(after):
        products = [_product(before[-num_before:]), _product(after[-num_after:])]
        if None in products:
            return None
        if products[0] == products[1]:
            return Group(before[-num_before:], after[-num_after:])
        if products[0] < products[1]:  # type: ignore[operator]
            num_before += 1
        else:
            num_after += 1
    return None


def _product(lengths: Lengths) -> int | None:
    numbers = [length for length in lengths if isinstance(length, int)]
    return math.prod(numbers) if len(numbers) == len(lengths) and 0 not in numbers else None


def _mirrored(group: Group) -> Group:
    return Group(group.before[::-1], group.after[::-1])


def _reshaped(values: Array, groups: list[Group]) -> Array:
    """Expand `values` along the groups in which it varies, then give it the new axes."""
    full: list[int] = []
    target: list[int] = []
    axis = 0
    for group in groups:
        lengths = values.shape[axis : axis + len(group.before)]
        axis += len(group.before)
        varies = any(length != 1 for length in lengths)
        full += _numbers(group.before) if varies else lengths
        target += _numbers(_completed(group)) if varies else [1] * len(group.after)
    return np.broadcast_to(values, full).reshape(target)


def _completed(group: Group) -> Lengths:
    """The lengths after the reshape, where the one that is not known follows from the others."""
    unknown = [k for k, length in enumerate(group.after) if not isinstance(length, int)]
    if len(unknown) != 1:
        return group.after
    total, known = _product(group.before), _product(tuple(n for n in group.after if isinstance(n, int)))
    if total is None or known is None or total % known:
        raise ValueError("not proved")
    return tuple(total // known if k in unknown else length for k, length in enumerate(group.after))


def _numbers(lengths: Lengths) -> list[int]:
    numbers = [length for length in lengths if isinstance(length, int)]
    if len(numbers) != len(lengths):
        raise ValueError("not proved")
    return numbers


def _text(lengths: tuple[Length, ...]) -> str:
    return "[" + ", ".join("?" if length is None else str(length) for length in lengths) + "]"
