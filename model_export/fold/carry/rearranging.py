"""Nodes that arrange the same elements in another way, or repeat them: a map goes with the elements.

Transpose, Reshape, Flatten, Squeeze, Unsqueeze, Expand, Pad, Resize, Upsample, DepthToSpace and SpaceToDepth.
"""

from __future__ import annotations

import numpy as np

from model_export.affine import Affine, Array
from model_export.fold.layout import reshape_affine
from model_export.fold.ledger import Refused
from model_export.fold.nodes import float_of, input_of, int_of, ints_of, name_of, string_of
from model_export.fold.scope import Scope
from model_export.fold.shapes import Lengths
from model_export.ir import ir

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def _data(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[0]
    if index != 0 or value is None:
        raise Refused(f"{node.op_type} ({name_of(node)}) does not read it as its data", by=(name_of(node),))
    return value


# --- Transpose -------------------------------------------------------------------------------------------------------


def _permutation(node: ir.Node, rank: int) -> tuple[int, ...]:
    permutation = ints_of(node, "perm") or tuple(reversed(range(rank)))
    if len(permutation) != rank:
        raise Refused(f"Transpose ({name_of(node)}) turns {len(permutation)} axes of {rank}", by=(name_of(node),))
    return permutation


def _transpose_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:  # noqa: ARG001
    _data(node, index)
    return {0: affine.map(lambda values: values.transpose(_permutation(node, affine.rank)))}


def _transpose_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:  # noqa: ARG001
    inverse = tuple(np.argsort(_permutation(node, affine.rank)))
    return [{0: affine.map(lambda values: values.transpose(inverse))}]


# --- Reshape, Flatten, Squeeze, Unsqueeze ----------------------------------------------------------------------------


def _reshape_lengths(node: ir.Node, scope: Scope) -> tuple[Lengths, Lengths]:
    """The lengths before and after, as far as they are proved or the node's own target tells."""
    source = _data(node, 0)
    before = scope.shapes.of(source)
    after = scope.shapes.of(node.outputs[0])
    if after is None and node.op_type == "Reshape" and before is not None:
        after = _target_lengths(node, before, scope)
    if before is None or after is None:
        raise Refused(f"the shape of {(source if before is None else node.outputs[0]).name} is not known")
    return before, after


def _target_lengths(node: ir.Node, before: Lengths, scope: Scope) -> Lengths:
    target = scope.constants.ints(input_of(node, 1), f"the target of {name_of(node)}")
    copied = not int_of(node, "allowzero", 0)
    return tuple(
        before[k] if length == 0 and copied and k < len(before) else (None if length < 0 else length)
        for k, length in enumerate(target)
    )


def _reshape_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:
    _data(node, index)
    before, after = _reshape_lengths(node, scope)
    return {0: reshape_affine(affine, before, after, f"{node.op_type} ({name_of(node)})")}


def _reshape_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:  # noqa: ARG001
    before, after = _reshape_lengths(node, scope)
    return [{0: reshape_affine(affine, after, before, f"{node.op_type} ({name_of(node)})")}]


# --- Expand ----------------------------------------------------------------------------------------------------------


def _expand_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:
    """Where the map varies the value is longer than 1, so that it is not repeated there."""
    _data(node, index)
    missing = scope.rank(node.outputs[0]) - affine.rank
    return {0: affine.map(lambda values: values.reshape((1,) * missing + values.shape))}


def _expand_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:  # noqa: ARG001
    source = _data(node, 0)
    lengths = scope.lengths(source)
    missing = affine.rank - len(lengths)
    for axis, length in enumerate(affine.shape):
        if length != 1 and (axis < missing or lengths[axis - missing] != length):
            raise Refused(f"Expand ({name_of(node)}) repeats along the channels", by=(name_of(node),))
    return [{0: affine.map(lambda values: values.reshape(values.shape[missing:]))}]


# --- Pad -------------------------------------------------------------------------------------------------------------


def _pad(node: ir.Node, affine: Affine, scope: Scope) -> Affine:
    """Padding that repeats real values keeps the map; padding with a constant must put in what the map maps to it."""
    mode = string_of(node, "mode", "constant")
    for axis in _padded_axes(node, affine.rank, scope):
        if affine.varies_along(axis):
            raise Refused(f"Pad ({name_of(node)}) pads the channels", by=(name_of(node),))
    if mode == "constant":
        value = _padded_value(node, scope)
        if not (affine.scale * value + affine.shift == value).all():
            raise Refused(
                f"Pad ({name_of(node)}) pads with {value:g}, which the map would not reach", by=(name_of(node),)
            )
    return affine


def _padded_axes(node: ir.Node, rank: int, scope: Scope) -> tuple[int, ...]:
    pads = ints_of(node, "pads") or ints_of(node, "paddings")
    if pads is None:
        pads = scope.constants.ints(input_of(node, 1), f"the pads of {name_of(node)}")
    named = input_of(node, 3)
    axes = range(rank) if named is None else scope.constants.ints(named, f"the axes of {name_of(node)}")
    half = len(pads) // 2
    return tuple(axis % rank for axis, front, back in zip(axes, pads[:half], pads[half:], strict=True) if front or back)


def _padded_value(node: ir.Node, scope: Scope) -> float:
    if scope.opset < 11:
        return float_of(node, "value", 0.0)
    given = input_of(node, 2)
    return 0.0 if given is None else float(scope.constants.array(given, f"the value of {name_of(node)}").reshape(-1)[0])


def _pad_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:
    _data(node, index)
    return {0: _pad(node, affine, scope)}


def _pad_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:  # noqa: ARG001
    return [{0: _pad(node, affine, scope)}]


# --- Resize, Upsample ------------------------------------------------------------------------------------------------


def _resize(node: ir.Node, affine: Affine, scope: Scope) -> Affine:
    """Interpolation weights sum to one; along an axis where the map varies nothing must be interpolated."""
    if string_of(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise Refused(f"Resize ({name_of(node)}) puts in a constant beyond the edge", by=(name_of(node),))
    source = _data(node, 0)
    for axis in range(affine.rank):
        before, after = scope.shapes.length(source, axis), scope.shapes.length(node.outputs[0], axis)
        if affine.varies_along(axis) and (
            before is None or before != after or _scale(node, axis, affine.rank, scope) != 1
        ):
            raise Refused(f"{node.op_type} ({name_of(node)}) is not proved to leave the channels", by=(name_of(node),))
    return affine


def _scale(node: ir.Node, axis: int, rank: int, scope: Scope) -> float:
    """How much longer an axis is to become: at 1.1, 4 stay 4 but are interpolated. 1 where sizes are given."""
    scales = input_of(node, 2 if node.op_type == "Resize" and scope.opset >= 11 else 1)
    if scales is None or not scope.constants.is_constant(scales):
        return 1.0
    values = scope.constants.array(scales, f"the scales of {name_of(node)}")
    axes = [named % rank for named in ints_of(node, "axes") or range(rank)]
    return float(dict(zip(axes, values.tolist(), strict=False)).get(axis, 1.0))


def _resize_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:
    _data(node, index)
    return {0: _resize(node, affine, scope)}


def _resize_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:  # noqa: ARG001
    return [{0: _resize(node, affine, scope)}]


# --- DepthToSpace, SpaceToDepth --------------------------------------------------------------------------------------


def _refuse_all_but_channels(node: ir.Node, affine: Affine) -> None:
    if any(affine.varies_along(axis) for axis in range(affine.rank) if axis != 1):
        raise Refused(f"{node.op_type} ({name_of(node)}) mixes what the map tells apart", by=(name_of(node),))


def _deeper(affine: Affine, node: ir.Node, *, mode: str) -> Affine:
    """A map on shallow channels, on the deep ones that they were made of: each is `blocksize`² of them."""
    times = int_of(node, "blocksize", 1) ** 2

    def repeat(values: Array) -> Array:
        if values.shape[1] == 1:
            return values
        return np.tile(values, (1, times, 1, 1)) if mode == "DCR" else np.repeat(values, times, axis=1)

    return affine.map(repeat)


def _depth_to_space_backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:  # noqa: ARG001
    _refuse_all_but_channels(node, affine)
    return [{0: _deeper(affine, node, mode=string_of(node, "mode", "DCR"))}]


def _space_to_depth_forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:  # noqa: ARG001
    _data(node, index)
    _refuse_all_but_channels(node, affine)
    return {0: _deeper(affine, node, mode="DCR")}


FORWARD = {
    "Transpose": _transpose_forward,
    **dict.fromkeys(RESHAPES, _reshape_forward),
    "Expand": _expand_forward,
    "Pad": _pad_forward,
    "Resize": _resize_forward,
    "Upsample": _resize_forward,
    "SpaceToDepth": _space_to_depth_forward,
}
BACKWARD = {
    "Transpose": _transpose_backward,
    **dict.fromkeys(RESHAPES, _reshape_backward),
    "Expand": _expand_backward,
    "Pad": _pad_backward,
    "Resize": _resize_backward,
    "Upsample": _resize_backward,
    "DepthToSpace": _depth_to_space_backward,
}
