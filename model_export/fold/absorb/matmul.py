"""MatMul with a constant on either side, of any rank; its bias is an Add behind it, which is made where there is none.

With the constant W on the right, y = x W: the outputs are y's last axis and W's, the inputs x's last axis and W's last
but one. On the left, y = W x, it is the last axis but one each time. Leading axes are a batch of matrices: there the
map and W broadcast against each other. A map on any other axis is refused, whatever the sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_export.affine import Affine, Array
from model_export.fold.constants import Exact
from model_export.fold.edit import Edit
from model_export.fold.ledger import Refused
from model_export.fold.nodes import int_of, is_op, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir

MAX_CASTS = 4


@dataclass(frozen=True)
class _Product:
    """A MatMul: which input is the constant, and the Add of its bias where there is one, with what lies `between`."""

    node: ir.Node
    side: int
    weight: Exact
    bias: Array | None
    add: ir.Node | None
    between: tuple[ir.Value, ...]

    @property
    def axis(self) -> int:
        """The axis of the outputs, and of the inputs, among the last two of a value."""
        return -1 if self.side == 1 else -2


def absorb_behind(node: ir.Node, affine: Affine, scope: Scope) -> Edit:
    """Fold a map on the product, or on the Add of its bias."""
    product = _read(node, scope)
    _refuse_other_axis(affine.scale, product)
    weight = _scaled(product, affine.scale, as_inputs=False)
    bias = affine.shift if product.bias is None else product.bias * affine.scale + affine.shift
    return _edit(product, weight, bias)


def absorb_before(node: ir.Node, index: int, affine: Affine, scope: Scope) -> Edit:
    """Fold a map on the input that is not the constant."""
    product = _read(node, scope)
    if index == product.side:
        raise Refused(f"{name_of(node)} reads it twice", by=(name_of(node),))
    _refuse_other_axis(affine.scale, product)
    weight = _scaled(product, affine.scale, as_inputs=True)
    shift = _multiplied(product, affine.shift) if affine.has_shift else np.zeros(())
    bias = shift if product.bias is None else product.bias + shift
    return _edit(product, weight, bias)


def add_diagonal(node: ir.Node, affine: Affine, scope: Scope) -> Edit:
    """Fold a map of the input that is added to the product, along the axis that is both inputs and outputs."""
    product = _read(node, scope)
    _refuse_other_axis(affine.scale, product)
    weight, (rows, columns) = product.weight, product.weight.shape[-2:]
    if rows != columns or affine.shape[product.axis] not in {1, rows}:
        raise Refused(f"{name_of(node)} has other outputs than inputs", by=(name_of(node),))
    if affine.scale.size != affine.scale.shape[product.axis]:
        raise Refused(f"the map differs among the matrices that {name_of(node)} multiplies", by=(name_of(node),))
    diagonal = np.diag(np.broadcast_to(affine.scale.reshape(-1), (rows,)))
    exact = Exact(lambda: weight.compute() + diagonal, weight.shape, weight.dtype)
    return _edit(product, exact, affine.shift if product.bias is None else product.bias + affine.shift)


def bias_add(node: ir.Node, scope: Scope) -> ir.Node | None:
    """The Add behind a MatMul, if it is the only reader and adds a constant that does not lengthen the product.

    In between may stand nodes that change nothing at all, such as Keras' casts from float32 to float32.
    """
    value = _last_same(node.outputs[0], scope)
    reader = scope.only_reader(value)
    if reader is None or not is_op(reader, "Add") or scope.opset < 7:
        return None
    return reader if _added(reader, value, node, scope) is not None else None


def product_of(add: ir.Node, scope: Scope) -> ir.Node | None:
    """The MatMul whose bias this Add is."""
    for value in add.inputs if is_op(add, "Add") else ():
        node = None if value is None else value.producer()
        while node is not None and _changes_nothing(node, scope) and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        if node is not None and is_op(node, "MatMul") and node.graph is scope.graph and bias_add(node, scope) is add:
            return node
    return None


def _last_same(value: ir.Value, scope: Scope) -> ir.Value:
    """The value at the end of a chain of nodes that change nothing."""
    for _ in range(MAX_CASTS):
        reader = scope.only_reader(value)
        if reader is None or not _changes_nothing(reader, scope):
            break
        value = reader.outputs[0]
    return value


def _changes_nothing(node: ir.Node, scope: Scope) -> bool:
    if is_op(node, "Cast"):
        return node.inputs[0] is not None and scope.shapes.dtype(node.inputs[0]) == int_of(node, "to", 0)
    return is_op(node, "Identity")


def nodes_before_bias(node: ir.Node, add: ir.Node, scope: Scope) -> list[ir.Value]:
    """The product, and what is handed on unchanged up to the Add of its bias."""
    values = [node.outputs[0]]
    while (reader := scope.only_reader(values[-1])) is not None and reader is not add:
        values.append(reader.outputs[0])
    return values


def _read(node: ir.Node, scope: Scope) -> _Product:
    if scope.opset < 7:
        raise Refused(f"{name_of(node)} is of opset {scope.opset}, whose Add broadcasts a bias by other rules")
    if len(node.inputs) != 2:
        raise Refused(f"{name_of(node)} has {len(node.inputs)} inputs, expected 2")
    is_constant = [scope.constants.is_constant(value) for value in node.inputs]
    side = 1 if not is_constant[0] else 0
    weight = scope.constants.read(node.inputs[side], f"the weight of {name_of(node)}")
    other = node.inputs[1 - side]
    if len(weight.shape) < 2 or other is None or scope.rank(other) < 2:
        raise Refused(f"{name_of(node)} multiplies a vector", by=(name_of(node),))
    add = bias_add(node, scope)
    last = _last_same(node.outputs[0], scope)
    bias = None if add is None else _added(add, last, node, scope)
    return _Product(node, side, weight, bias, add, () if add is None else tuple(nodes_before_bias(node, add, scope)))


def _added(add: ir.Node, product: ir.Value, node: ir.Node, scope: Scope) -> Array | None:
    """What the Add adds to the product, where it is constant and one value for each output, or for all."""
    other = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
    if not scope.constants.is_constant(other):
        return None
    try:
        added = scope.constants.array(other, "bias")
        rank, num_outputs = scope.rank(node.outputs[0]), _num_outputs(node, scope)
    except Refused:
        return None
    axis = -1 if not scope.constants.is_constant(node.inputs[0]) else -2
    laid = added.reshape((1,) * (rank - added.ndim) + added.shape) if added.ndim <= rank else None
    if laid is None or any(n != 1 for k, n in enumerate(laid.shape) if k != axis % rank):
        return None
    return laid if laid.shape[axis] in {1, num_outputs} else None


def _num_outputs(node: ir.Node, scope: Scope) -> int:
    constant_left = scope.constants.is_constant(node.inputs[0])
    weight = scope.constants.read(node.inputs[0 if constant_left else 1], "weight")
    return weight.shape[-2 if constant_left else -1]


def _refuse_other_axis(values: Array, product: _Product) -> None:
    other = -2 if product.axis == -1 else -1
    if values.ndim < 2 or values.shape[other] != 1:
        raise Refused(
            f"the map varies along an axis that {name_of(product.node)} neither sums over nor makes: equal sizes "
            "prove nothing",
            by=(name_of(product.node),),
        )


def _scaled(product: _Product, scale: Array, *, as_inputs: bool) -> Exact:
    """The weight with its outputs scaled, or its inputs."""
    factor = np.swapaxes(scale, -1, -2) if as_inputs else scale
    while factor.ndim > len(product.weight.shape) and factor.shape[0] == 1:
        factor = factor[0]
    try:
        fits = np.broadcast_shapes(factor.shape, product.weight.shape) == product.weight.shape
    except ValueError:
        fits = False
    if not fits:
        raise Refused(f"the map does not fit the weight of {name_of(product.node)}", by=(name_of(product.node),))
    weight = product.weight
    return Exact(lambda: weight.compute() * factor, weight.shape, weight.dtype)


def _multiplied(product: _Product, shift: Array) -> Array:
    """What the product makes of the shift, which is written out along the inputs."""
    weight = product.weight.compute()
    lengths = list(shift.shape)
    lengths[product.axis] = weight.shape[-2 if product.side == 1 else -1]
    whole = np.broadcast_to(shift, lengths)
    return whole @ weight if product.side == 1 else weight @ whole


def _edit(product: _Product, weight: Exact, bias: Array) -> Edit:
    node = product.node
    constants = {(node, product.side): weight}
    trimmed = bias.reshape(_without_leading_ones(bias.shape))
    exact = Exact(lambda: trimmed, trimmed.shape, weight.dtype)
    if product.add is not None:
        constants[product.add, 0 if product.add.inputs[1] is product.between[-1] else 1] = exact
        return Edit(constants=constants, layers=(node,), changed=product.between)
    shifts = {node.outputs[0]: exact} if bias.any() else {}
    return Edit(constants=constants, shifts=shifts, layers=(node,))


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape
