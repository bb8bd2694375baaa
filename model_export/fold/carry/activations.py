"""Functions of one element: those that hand it on, and those that keep a positive factor.

relu(s·x) = s·relu(x)    for s ≥ 0, and likewise LeakyRelu, PRelu, Abs; a shift they do not keep.
"""

from __future__ import annotations

from model_export.affine import Affine
from model_export.fold.ledger import Refused
from model_export.fold.nodes import FLOATS, has_other_outputs, input_of, int_of, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir


def refuse_shift(node: ir.Node, affine: Affine) -> None:
    """Refuse a map that does more than scale."""
    if affine.has_shift:
        raise Refused(f"{node.op_type} ({name_of(node)}) keeps a scale, but not the shift", by=(name_of(node),))


def refuse_negative_scale(node: ir.Node, affine: Affine) -> None:
    """Refuse a map that turns the order of values around."""
    if (affine.scale < 0).any():
        raise Refused(
            f"{node.op_type} ({name_of(node)}) keeps a positive scale, but some are negative", by=(name_of(node),)
        )


def refuse_other_outputs(node: ir.Node) -> None:
    """Refuse a node whose further outputs, such as a mask or indices, are read."""
    if has_other_outputs(node):
        raise Refused(f"{node.op_type} ({name_of(node)}) has a second output that is read", by=(name_of(node),))


def _homogeneous(node: ir.Node, affine: Affine) -> Affine:
    refuse_shift(node, affine)
    refuse_negative_scale(node, affine)
    return affine


def _dropout(node: ir.Node, affine: Affine, scope: Scope) -> Affine:
    refuse_other_outputs(node)
    flag = input_of(node, 2)
    if scope.opset < 7 and not int_of(node, "is_test", 0):
        raise Refused(f"Dropout ({name_of(node)}) is in training mode", by=(name_of(node),))
    if flag is not None and any(scope.constants.ints(flag, f"the training_mode of {name_of(node)}")):
        raise Refused(f"Dropout ({name_of(node)}) is in training mode", by=(name_of(node),))
    return affine


def _cast(node: ir.Node, scope: Scope, *, forward: bool) -> None:
    """Only between floats; and what was normalised before it was narrowed must not be narrowed raw."""
    value, target = node.inputs[0], ir.DataType(int_of(node, "to", 0))
    source = None if value is None else scope.shapes.dtype(value)
    if source is None or source not in FLOATS or target not in FLOATS:
        raise Refused(f"Cast ({name_of(node)}) is not proved to be between floating-point dtypes", by=(name_of(node),))
    if forward and target.itemsize < source.itemsize:
        raise Refused(
            f"Cast ({name_of(node)}) would round values to {target.name.lower()} before they are normalised",
            by=(name_of(node),),
        )


def _only_first(node: ir.Node, index: int) -> None:
    if index != 0:
        raise Refused(f"{node.op_type} ({name_of(node)}) does not read it as its data", by=(name_of(node),))


def _same(node: ir.Node, affine: Affine, scope: Scope, *, forward: bool) -> Affine:
    if node.op_type in HOMOGENEOUS:
        return _homogeneous(node, affine)
    if node.op_type == "Dropout":
        return _dropout(node, affine, scope)
    if node.op_type == "Cast":
        _cast(node, scope, forward=forward)
    return affine


def _forward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> dict[int, Affine]:
    _only_first(node, index)
    return {0: _same(node, affine, scope, forward=True)}


def _backward(node: ir.Node, index: int, affine: Affine, scope: Scope) -> list[dict[int, Affine]]:
    _only_first(node, index)
    return [{0: _same(node, affine, scope, forward=False)}]


HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "Abs")
OPERATORS = (*HOMOGENEOUS, "Identity", "Dropout", "Cast")
FORWARD = dict.fromkeys(OPERATORS, _forward)
BACKWARD = dict.fromkeys(OPERATORS, _backward)
