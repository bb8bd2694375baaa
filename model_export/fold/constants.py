"""What is the same at every run: initializers, Constant nodes, and whatever is computed from such alone.

Exporters hide weights in expressions (`Expand(CastLike(0, x), Shape(W))` is a bias of zeros): those are computed here,
by ONNX's reference implementation, in the model's own arithmetic. A value that a caller may override is no constant.

An `Exact` is a constant as it will be, in float64 and not yet rounded. It is computed anew each time that somebody
asks, so that a plan for a large network holds no second copy of its weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from model_export.affine import Array
from model_export.fold.ledger import Refused
from model_export.fold.nodes import FLOATS, input_of, is_op, name_of
from model_export.fold.reference import evaluate_by_reference
from model_export.ir import ir
from model_export.random_operators import RANDOM_OPERATORS

STORED_SMALL = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})  # and meant to stay so
ENLARGING = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}  # which input says how much there will be
MAX_ELEMENTS = 2**26
MAX_DEPTH = 32  # nodes in a row that an expression of constants may be long


@dataclass(frozen=True)
class Exact:
    """A constant as it will be: `compute` gives float64 of `shape`, `dtype` is what it is rounded to, once."""

    compute: Callable[[], Array]
    shape: tuple[int, ...]
    dtype: ir.DataType

    def computed(self) -> Exact:
        """The same constant, computed once and held."""
        values = self.compute()
        return Exact(lambda: values, self.shape, self.dtype)

    def rounded(self) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        """The elements in the model's dtype. A value beyond its range becomes infinite."""
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(self.compute()).astype(self.dtype.numpy())


class Constants:
    """The constants of a model that is being folded; `exact` holds those that a fold has changed, before rounding."""

    def __init__(self, opset: int, dtypes: Mapping[ir.Value, ir.DataType] | None = None) -> None:
        self._opset = opset
        self._dtypes = dtypes or {}
        self.exact: dict[ir.Value, Exact] = {}
        self._computed: dict[ir.Value, ir.TensorProtocol | None] = {}

    def tensor(self, value: ir.Value | None) -> ir.TensorProtocol | None:
        """The tensor of a constant value in its own dtype; None where the value is not constant."""
        return self._tensor(value, 0)

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether the value is the same at every run."""
        return self.tensor(value) is not None

    def read(self, value: ir.Value | None, what: str) -> Exact:
        """A constant of a floating-point dtype. `what` names it in the reason.

        Raises:
            Refused: it is computed while the model runs, a caller may override it, or it is of another dtype.
        """
        if value is not None and value in self.exact:
            return self.exact[value]
        tensor = self._must(value, what)
        if tensor.dtype not in FLOATS:
            raise Refused(f"{what} ({_name(value)}) is {tensor.dtype.name.lower()}, no floating-point number")
        return Exact(lambda: np.asarray(tensor.numpy(), np.float64), tuple(tensor.shape.numpy()), tensor.dtype)

    def array(self, value: ir.Value | None, what: str) -> Array:
        """The elements of a floating-point constant, in float64. Raises Refused as `read` does."""
        return self.read(value, what).compute()

    def ints(self, value: ir.Value | None, what: str) -> tuple[int, ...]:
        """The elements of a constant that holds a shape, axes or the like.

        Raises:
            Refused: it is not constant.
        """
        return tuple(int(k) for k in np.reshape(self._must(value, what).numpy(), -1))

    def forget(self, nodes: Iterable[ir.Node]) -> None:
        """Compute anew what follows from constants that these nodes make, for they make others now."""
        if any(self._computed.get(output) is not None for node in nodes for output in node.outputs):
            self._computed.clear()

    def _must(self, value: ir.Value | None, what: str) -> ir.TensorProtocol:
        if value is not None and value.is_initializer() and value.is_graph_input():
            raise Refused(f"{what} ({value.name}) is also an input of the graph: a caller may override it")
        tensor = self.tensor(value)
        if tensor is None:
            raise Refused(f"{what} ({_name(value)}) is not constant")
        return tensor

    def _tensor(self, value: ir.Value | None, depth: int) -> ir.TensorProtocol | None:
        if value is None or value.is_graph_input():
            return None
        if value.is_initializer():
            return value.const_value
        if value not in self._computed:
            self._computed[value] = self._compute(value, depth)
        return self._computed[value]

    def _compute(self, value: ir.Value, depth: int) -> ir.TensorProtocol | None:
        node = value.producer()
        if node is None or depth > MAX_DEPTH:
            return None
        if is_op(node, "Constant"):
            return _tensor_of(node)
        is_plain = is_op(node, node.op_type) and len(node.outputs) == 1 and not _has_body(node)
        if not is_plain or node.op_type in RANDOM_OPERATORS | STORED_SMALL:
            return None
        return self._expression(node, depth)

    def _expression(self, node: ir.Node, depth: int) -> ir.TensorProtocol | None:
        if is_op(node, "CastLike"):
            return self._cast_like(node, depth)
        if not node.inputs:
            return None
        tensors = [None if value is None else self._tensor(value, depth + 1) for value in node.inputs]
        if any(tensor is None for value, tensor in zip(node.inputs, tensors, strict=True) if value is not None):
            return None
        if node.op_type in ENLARGING and not _fits(tensors[ENLARGING[node.op_type]]):
            return None
        return self._evaluate(node, [None if tensor is None else tensor.numpy() for tensor in tensors])

    def _evaluate(self, node: ir.Node, inputs: list[np.ndarray | None]) -> ir.TensorProtocol | None:
        try:
            return ir.tensor(np.asarray(evaluate_by_reference(node, inputs, self._opset)[0]))
        except Exception:  # noqa: BLE001 - what the reference can not compute is not constant to us
            return None

    def _cast_like(self, node: ir.Node, depth: int) -> ir.TensorProtocol | None:
        """Of what it is like only the dtype counts, and that is known before the model runs."""
        like = input_of(node, 1)
        tensor = self._tensor(node.inputs[0], depth + 1)
        dtype = None if like is None else self._dtypes.get(like) or like.dtype
        if tensor is None or dtype is None or dtype not in FLOATS:
            return None
        return ir.Tensor(tensor.numpy().astype(dtype.numpy()), dtype=dtype)


def _fits(sizes: ir.TensorProtocol | None) -> bool:
    return sizes is not None and math.prod(int(size) for size in np.reshape(sizes.numpy(), -1)) <= MAX_ELEMENTS


def _has_body(node: ir.Node) -> bool:
    return any(a.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for a in node.attributes.values())


def _tensor_of(node: ir.Node) -> ir.TensorProtocol | None:
    """What a Constant holds. Not onnx-ir's own way, which writes a name into the tensor that copies share."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            return attribute.as_tensor()
        if name in _DTYPES:
            return ir.Tensor(np.asarray(attribute.value, dtype=_DTYPES[name]))
    return None


def _name(value: ir.Value | None) -> str:
    if value is None:
        return "absent"
    return value.name or name_of(value.producer()) if value.producer() else str(value.name)  # type: ignore[arg-type]


_DTYPES = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
