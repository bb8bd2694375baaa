"""Proves shapes: what a file states about the values in between is a claim; what follows from its inputs is proof.

ONNX's own inference derives the shapes anew, from the inputs and the weights, on a copy without the statements.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from model_export.fold.constants import Constants
from model_export.fold.nodes import FLOATS, input_of, is_op
from model_export.ir import ir

Length = int | str | None  # a number, a name that stands for the same number wherever it is used, or not known
Lengths = tuple[Length, ...]

SAME_SHAPE = frozenset(
    {
        "Abs", "BatchNormalization", "Cast", "Celu", "Clip", "Dropout", "Elu", "Erf", "Gelu", "HardSigmoid",
        "HardSwish", "Identity", "InstanceNormalization", "LeakyRelu", "Mish", "Neg", "PRelu", "Relu", "Selu",
        "Sigmoid", "Softmax", "Softplus", "Swish", "Tanh",
    }
)  # fmt: skip
RANK_OF_WEIGHT = frozenset({"Conv", "ConvTranspose"})
SAME_RANK = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Pad", "Resize", "Transpose"})


class Shapes:
    """The proved shapes of a model's values, in the main graph and in the bodies of its nodes."""

    def __init__(self, proved: dict[ir.Value, Lengths], dtypes: dict[ir.Value, ir.DataType]) -> None:
        self._proved = proved
        self.dtypes = dtypes

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The dtype; None where neither inference nor the file tells."""
        return self.dtypes.get(value) or value.dtype

    def of(self, value: ir.Value) -> Lengths | None:
        """The length of each axis; None where not even the number of axes is proved."""
        if value in self._proved:
            return self._proved[value]
        tensor = None if value.is_graph_input() else value.const_value or _held_by_constant(value.producer())
        return None if tensor is None else tuple(tensor.shape.numpy())

    def rank(self, value: ir.Value | None, depth: int = 0) -> int | None:
        """The number of axes; where inference is blind, as in a function's body, the operators still tell."""
        if value is None or depth > _MAX_DEPTH:
            return None
        shape = self.of(value)
        return len(shape) if shape is not None else self._rank_by_operator(value.producer(), depth)

    def length(self, value: ir.Value, axis: int) -> Length:
        """The length of one axis; None where it is not proved."""
        shape = self.of(value)
        return None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]

    def copy(self, source: ir.Value, target: ir.Value) -> None:
        """Say that a new value has the shape and dtype of another."""
        if source in self._proved:
            self._proved[target] = self._proved[source]
        if source in self.dtypes:
            self.dtypes[target] = self.dtypes[source]

    def _rank_by_operator(self, node: ir.Node | None, depth: int) -> int | None:
        if node is None:
            return None
        if is_op(node, *RANK_OF_WEIGHT):
            return self.rank(input_of(node, 1), depth + 1)
        if is_op(node, "Gemm"):
            return 2
        return self.rank(input_of(node, 0), depth + 1) if is_op(node, *SAME_SHAPE, *SAME_RANK) else None


def _held_by_constant(node: ir.Node | None) -> ir.TensorProtocol | None:
    attribute = node.attributes.get("value") if node is not None and is_op(node, "Constant") else None
    return None if attribute is None or attribute.is_ref() else attribute.as_tensor()


_MAX_DEPTH = 50
WHOLE = frozenset({ir.DataType.INT64, ir.DataType.INT32})
MAX_RANK = 64  # elements: of a shape, not of indices into a table


def prove_shapes(model: ir.Model) -> Shapes:
    """Infer the shape of every node's output from the model's inputs and weights; `model` stays as it is."""
    inferred = _inferred(model)
    proved: dict[ir.Value, Lengths] = {}
    dtypes: dict[ir.Value, ir.DataType] = {}
    for graph, copy in zip(model.graphs(), inferred.graphs(), strict=True):
        for node, twin in zip(graph, copy, strict=True):
            pairs = list(zip(node.outputs, twin.outputs, strict=True))
            proved |= {value: _lengths(known.shape) for value, known in pairs if known.shape is not None}
            dtypes |= {value: known.dtype for value, known in pairs if known.dtype is not None}
        proved |= {value: _lengths(value.shape) for value in graph.inputs if value.shape is not None}
    return Shapes(proved, dtypes)


def _inferred(model: ir.Model) -> ir.Model:
    """A copy with proved shapes. The pass reorders initializers, so it must be a copy."""
    from onnx_ir.passes.common import ShapeInferencePass

    bare = model.clone()
    for value in bare.graph.inputs:  # an initializer that a caller may override proves nothing
        bare.graph.initializers.pop(str(value.name), None)
    for node in bare.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    _compute_whole_numbers(bare)
    with _quiet(ShapeInferencePass.__module__):
        return ShapeInferencePass(check_type=False, strict_mode=False)(bare).model


def _compute_whole_numbers(model: ir.Model) -> None:
    """Compute the axes and targets that exporters leave as expressions of constants: inference does not see through."""
    constants = Constants(model.opset_imports.get("", 0))
    for node in list(model.graph):
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if value is None or producer is None or is_op(producer, "Constant") or value.dtype in FLOATS:
                continue
            tensor = constants.tensor(value)
            if tensor is None or tensor.dtype not in WHOLE or tensor.size > MAX_RANK:
                continue
            known = _initializer(model, f"{value.name}:known", tensor)
            node.replace_input_with(list(node.inputs).index(value), known)


def _initializer(model: ir.Model, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    if name not in model.graph.initializers:
        value = ir.Value(name=name, const_value=ir.tensor(tensor.numpy(), name=name))
        value.shape, value.dtype = ir.Shape(tensor.shape.numpy()), tensor.dtype
        model.graph.register_initializer(value)
    return model.graph.initializers[name]


def _lengths(shape: ir.Shape | None) -> Lengths:
    return tuple(length if isinstance(length, int) else length.value for length in shape or ())


@contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """A failed inference proves nothing, which is not the user's trouble; the pass would log a traceback."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
