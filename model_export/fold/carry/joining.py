"""Concat, Split and Slice: tensors are put together or taken apart along an axis.

Where only a part carries the map, the others carry the identity beside it: the map then varies along that axis.
"""

from __future__ import annotations

import numpy as np

from model_export.affine import Affine, Array
from model_export.fold.ledger import Refused
from model_export.fold.nodes import input_of, int_of, ints_of, is_read, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir


def _length(value: ir.Value | None, axis: int, scope: Scope) -> int:
    length = None if value is None else scope.shapes.length(value, axis)
    if not isinstance(length, int):
        raise Refused(f"the length of {value.name if value else 'a part'} along axis {axis} is not proved")
    return length


def part_of(affine: Affine, axis: int, start: int, length: int) -> Affine:
    """The map on `length` places along the axis, from `start`."""
    return _taken(affine, axis, slice(start, start + length))


def among(affine: Affine, axis: int, places: slice, total: int) -> Affine:
    """The map on these places of `total` along the axis, and the identity on the others."""

    def embed(values: Array, background: float) -> Array:
        shape = tuple(total if k == axis else n for k, n in enumerate(values.shape))
        whole = np.full(shape, background)
        whole[(slice(None),) * axis + (places,)] = values
        return whole

    return Affine(embed(affine.scale, 1.0), embed(affine.shift, 0.0))


def _taken(affine: Affine, axis: int, cut: slice) -> Affine:
    def take(values: Array) -> Array:
        return values if values.shape[axis] == 1 else values[(slice(None),) * axis + (cut,)]

    return affine.map(take)


def _among_parts(affine: Affine, axis: int, index: int, lengths: list[int]) -> Affine:
    start = _starts(lengths)[index]
    return among(affine, axis, slice(start, start + lengths[index]), sum(lengths))


def _starts(lengths: list[int]) -> list[int]:
    return [sum(lengths[:k]) for k in range(len(lengths))]


def _axis(node: ir.Node, rank: int, default: int = 0) -> int:
    return int_of(node, "axis", default) % rank


# --- Concat ----------------------------------------------------------------------------------------------------------


def _concat_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:  # noqa: ARG001
    axis = _axis(node, affine.rank, 1)
    if not affine.varies_along(axis):
        return [dict.fromkeys(range(len(node.inputs)), affine)]
    lengths = [_length(value, axis, scope) for value in node.inputs]
    pairs = zip(_starts(lengths), lengths, strict=True)
    return [{k: part_of(affine, axis, start, length) for k, (start, length) in enumerate(pairs)}]


def _concat_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:
    axis = _axis(node, affine.rank, 1)
    lengths = [_length(value, axis, scope) for value in node.inputs]
    return {0: _among_parts(affine, axis, index, lengths)}


# --- Split -----------------------------------------------------------------------------------------------------------


def _split_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:
    _only_data(node, index)
    axis = _axis(node, affine.rank)
    if not affine.varies_along(axis):
        return {k: affine for k, output in enumerate(node.outputs) if is_read(output)}
    lengths = [_length(output, axis, scope) for output in node.outputs]
    starts = _starts(lengths)
    read = [k for k, output in enumerate(node.outputs) if is_read(output)]
    return {k: part_of(affine, axis, starts[k], lengths[k]) for k in read}


def _split_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:
    axis = _axis(node, affine.rank)
    others = [k for k, output in enumerate(node.outputs) if k != index and is_read(output)]
    if not others and not affine.varies_along(axis):
        return [{0: affine}]
    lengths = [_length(output, axis, scope) for output in node.outputs]
    return [{0: _among_parts(affine, axis, index, lengths)}]


# --- Slice -----------------------------------------------------------------------------------------------------------


def _ranges(node: ir.Node, rank: int, scope: Scope) -> dict[int, slice]:
    """What is taken along each axis that is cut."""
    if scope.opset < 10:
        starts, ends, axes = (ints_of(node, name) for name in ("starts", "ends", "axes"))
        steps = None
    else:
        starts, ends, axes, steps = (
            None if input_of(node, k) is None else scope.constants.ints(node.inputs[k], f"an input of {name_of(node)}")
            for k in (1, 2, 3, 4)
        )
    if starts is None or ends is None:
        raise Refused(f"Slice ({name_of(node)}) does not say where", by=(name_of(node),))
    axes, steps = axes or tuple(range(len(starts))), steps or (1,) * len(starts)
    cuts = zip(axes, starts, ends, steps, strict=True)
    return {axis % rank: slice(start, end, step) for axis, start, end, step in cuts}  # numpy clamps as ONNX does


def _varying_cut(node: ir.Node, affine: Affine, scope: Scope) -> tuple[int, slice] | None:
    """The one axis that is cut and along which the map varies, if there is one."""
    ranges = _ranges(node, affine.rank, scope)
    found = [(axis, cut) for axis, cut in ranges.items() if affine.varies_along(axis)]
    if len(found) > 1:
        raise Refused(f"Slice ({name_of(node)}) cuts the map along several axes", by=(name_of(node),))
    return found[0] if found else None


def _slice_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:
    _only_data(node, index)
    found = _varying_cut(node, affine, scope)
    if found is None:
        return {0: affine}
    axis, cut = found
    return {0: _taken(affine, axis, cut)}


def _slice_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:  # noqa: ARG001
    """What is not taken is seen by nobody, so that it may carry the identity."""
    found = _varying_cut(node, affine, scope)
    if found is None:
        return [{0: affine}]
    axis, cut = found
    total = _length(node.inputs[0], axis, scope)
    if len(np.arange(total)[cut]) != affine.shape[axis]:
        raise Refused(f"Slice ({name_of(node)}) is not proved to take {affine.shape[axis]} channels")
    return [{0: among(affine, axis, cut, total)}]


def _only_data(node: ir.Node, index: int) -> None:
    if index != 0:
        raise Refused(f"{node.op_type} ({name_of(node)}) does not read it as its data", by=(name_of(node),))


FORWARD = {"Concat": _concat_forward, "Split": _split_forward, "Slice": _slice_forward}
BACKWARD = {"Concat": _concat_backward, "Split": _split_backward, "Slice": _slice_backward}
