"""Gather from a constant table along its first axis, as an embedding is written: the map goes into the table."""

from __future__ import annotations

from model_export.affine import Affine, Array
from model_export.fold.constants import Exact
from model_export.fold.edit import Edit
from model_export.fold.ledger import Refused
from model_export.fold.nodes import int_of, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir


def absorb_behind(node: ir.Node, affine: Affine, scope: Scope) -> Edit:
    """Fold a map on the rows that were looked up; it must be the same for every row."""
    table = scope.constants.read(node.inputs[0], f"the table of {name_of(node)}")
    if int_of(node, "axis", 0) % len(table.shape) != 0:
        raise Refused(f"{name_of(node)} looks up along another axis than the first", by=(name_of(node),))
    num_row_axes = len(table.shape) - 1
    in_front = affine.shape[: affine.rank - num_row_axes]
    if any(length != 1 for length in in_front):
        raise Refused(f"the map differs among the rows that {name_of(node)} looks up", by=(name_of(node),))

    def of_a_row(values: Array) -> Array:
        return values.reshape(values.shape[len(in_front) :])

    row = affine.map(of_a_row)
    if any(n not in {1, length} for n, length in zip(row.shape, table.shape[1:], strict=True)):
        raise Refused(f"the map does not fit the table of {name_of(node)}", by=(name_of(node),))
    mapped = Exact(lambda: table.compute() * row.scale + row.shift, table.shape, table.dtype)
    return Edit(constants={(node, 0): mapped}, layers=(node,))
