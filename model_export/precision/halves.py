"""fp16 and bf16: weights and values are rounded, inputs and outputs stay float32, casts stand where the two meet.

A node computes in the narrow type if the operator's own schema admits it there, and if it is not kept in float32.
Types then flow: a value that comes in the other type than its reader wants goes through one Cast, however many readers
it has.

Why not a library: ONNX Runtime's and onnxconverter-common's `convert_float_to_float16` know no bfloat16, replace
weights beyond the range by the largest number in silence, and leave the nodes out of order.

bf16 keeps to operators that ONNX Runtime's CUDA provider computes in bfloat16: layers, sums, products, ReLU, and what
only moves values. Conv takes bfloat16 from opset 22 on; a model with one is raised to that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnxscript import version_converter

from model_export.errors import PrecisionUnavailable
from model_export.ir import ir
from model_export.precision.kept import LAYERS
from model_export.precision.ranges import check_range
from service.bundle import Precision

BF16_ON_CUDA = LAYERS | {"Add", "Sub", "Mul", "Relu", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
OPSET_OF_BF16_CONV = 22
# A running variance may be beyond fp16's range, and a BatchNorm that could not be folded costs little.
FLOAT32_ONLY = frozenset({"BatchNormalization"})


@dataclass(frozen=True)
class Half:
    """A narrow type: ONNX's, numpy's, its largest number, and the operators that compute in it (None: all that may)."""

    name: Precision
    onnx_type: ir.DataType
    numpy_type: np.dtype[np.generic]
    largest: float
    operators: AbstractSet[str] | None = None


HALVES: dict[Precision, Half] = {
    "fp16": Half("fp16", ir.DataType.FLOAT16, np.dtype(np.float16), 65504.0),
    "bf16": Half(
        "bf16",
        ir.DataType.BFLOAT16,
        np.dtype(ml_dtypes.bfloat16),
        (2 - 2**-7) * 2.0**127,
        BF16_ON_CUDA,
    ),
}


def narrow(model: ir.Model, half: Half, kept: AbstractSet[str], instances: NDArray[np.float32]) -> ir.Model:
    """Give the model in a narrow type; nodes whose name is in `kept` stay float32.

    Args:
        model: folded, float32, its values' types known; it is left as it is.
        half: the narrow type.
        kept: names of nodes.
        instances: training instances, float32 (N, *instance_shape), that must stay within the type's range.

    Raises:
        PrecisionUnavailable: a weight or a value is beyond the type's range, or a node has a graph of its own.
    """
    _refuse_subgraphs(model, half)
    copy = model.clone()
    if half.name == "bf16" and any(node.op_type == "Conv" for node in copy.graph):
        version_converter.convert_version(copy, max(OPSET_OF_BF16_CONV, copy.opset_imports[""]))
    places = {node: _places(node, half, kept) for node in copy.graph}
    check_range(copy, _narrow_values(places), half.name, half.largest, instances)
    casts = _Casts(copy.graph, half)
    for node, narrow_places in places.items():
        _narrow_node(node, narrow_places, casts)
    casts.finish()
    return copy


def _refuse_subgraphs(model: ir.Model, half: Half) -> None:
    for node in model.graph:
        if any(attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for attribute in _attributes(node)):
            raise PrecisionUnavailable(
                f"{node.name!r} ({node.op_type}) has a graph of its own, which --precision {half.name} does not enter: "
                "export with --precision fp32"
            )


def _attributes(node: ir.Node) -> list[ir.Attr]:
    return [attribute for attribute in node.attributes.values() if isinstance(attribute, ir.Attr)]


@dataclass(frozen=True)
class _Places:
    """Which inputs and outputs of a node are of the narrow type; none if it stays float32."""

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()


def _places(node: ir.Node, half: Half, kept: AbstractSet[str]) -> _Places:
    """Those of one type parameter that inputs and outputs share, such as `T`, where it admits the narrow type."""
    if node.name in kept or node.op_type in FLOAT32_ONLY or node.domain not in {"", "ai.onnx"}:
        return _Places()
    if half.operators is not None and node.op_type not in half.operators:
        return _Places()
    schema = _schema(node)
    admitted = {
        constraint.type_param_str
        for constraint in schema.type_constraints
        if f"tensor({half.onnx_type.name.lower()})" in constraint.allowed_type_strs
    }
    inputs = _of_float32(node.inputs, lambda index: _parameter(schema.inputs, index))
    outputs = _of_float32(node.outputs, lambda index: _parameter(schema.outputs, index))
    shared = admitted & set(inputs.values()) & set(outputs.values())
    if not set(outputs.values()) <= shared:
        return _Places()
    return _Places(
        inputs=frozenset(index for index, parameter in inputs.items() if parameter in shared),
        outputs=frozenset(outputs),
    )


def _narrow_values(places: dict[ir.Node, _Places]) -> list[ir.Value]:
    """The values that will be of the narrow type, in the order in which they are computed."""
    found: dict[ir.Value, None] = {}
    for node, narrow_places in places.items():
        inputs = [node.inputs[index] for index in sorted(narrow_places.inputs)]
        found |= dict.fromkeys(value for value in inputs if value is not None)
        found |= dict.fromkeys(node.outputs[index] for index in sorted(narrow_places.outputs))
    return list(found)


def _schema(node: ir.Node) -> onnx.defs.OpSchema:
    version = node.version if node.version is not None else node.graph.opset_imports[""]  # type: ignore[union-attr]
    return onnx.defs.get_schema(node.op_type, version, "")


def _of_float32(values: Sequence[ir.Value | None], parameter_of: Callable[[int], str]) -> dict[int, str]:
    return {
        index: parameter_of(index)
        for index, value in enumerate(values)
        if value is not None and value.dtype == ir.DataType.FLOAT
    }


def _parameter(parameters: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
    """The name of a type parameter; a variadic input's is that of the last one."""
    return parameters[min(index, len(parameters) - 1)].type_str


def _narrow_node(node: ir.Node, places: _Places, casts: _Casts) -> None:
    for index, value in enumerate(node.inputs):
        if value is not None:
            wanted = casts.half.onnx_type if index in places.inputs else ir.DataType.FLOAT
            node.replace_input_with(index, casts.given_as(value, wanted, reader=node))
    for index in places.outputs:
        node.outputs[index].type = ir.TensorType(casts.half.onnx_type)  # a new one: a clone shares the old


class _Casts:
    """The one place where values change their type: a Cast for a value that is computed, a copy of a weight."""

    def __init__(self, graph: ir.Graph, half: Half) -> None:
        self.half = half
        self._graph = graph
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def given_as(self, value: ir.Value, wanted: ir.DataType, *, reader: ir.Node) -> ir.Value:
        """`value` in the type `wanted`, if it is a float of the other type; itself otherwise."""
        floats = {ir.DataType.FLOAT, self.half.onnx_type}
        if value.dtype not in floats or value.dtype == wanted:
            return value
        if (value, wanted) not in self._made:
            convert = self._rounded if value.is_initializer() else self._cast
            self._made[value, wanted] = convert(value, wanted, reader)
        return self._made[value, wanted]

    def finish(self) -> None:
        """Make the graph's outputs float32 again, and let go of the weights that nobody reads any more."""
        self._widen_outputs()
        for (value, _), narrowed in self._made.items():
            if value.is_initializer() and not value.uses():
                name = str(value.name)
                del self._graph.initializers[name]
                narrowed.name = name

    def _widen_outputs(self) -> None:
        """A Cast stands in front of each output that is narrow; the output keeps its name."""
        for index, value in enumerate(self._graph.outputs):
            if value.dtype == self.half.onnx_type:
                name, value.name = value.name, f"{value.name}.{self.half.name}"
                wide = self._cast(value, ir.DataType.FLOAT, value.producer())
                wide.name = name
                self._graph.outputs[index] = wide

    def _cast(self, value: ir.Value, wanted: ir.DataType, reader: ir.Node | None) -> ir.Value:
        name = f"{value.name}.{self.half.name if wanted == self.half.onnx_type else 'fp32'}"
        node = ir.node("Cast", [value], {"to": wanted}, name=f"{name}.cast")
        node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = name, value.shape, ir.TensorType(wanted)
        producer = value.producer()
        if producer is not None:
            self._graph.insert_after(producer, node)
        else:
            self._graph.insert_before(reader, node)  # type: ignore[arg-type]  # an input's first reader
        return node.outputs[0]

    def _rounded(self, value: ir.Value, wanted: ir.DataType, _: ir.Node | None) -> ir.Value:
        """A weight in the narrow type."""
        wide = value.const_value.numpy()  # type: ignore[union-attr]
        name = f"{value.name}.{self.half.name}"
        tensor = ir.tensor(wide.astype(self.half.numpy_type), dtype=wanted, name=name)
        narrowed = ir.val(name, dtype=wanted, shape=value.shape, const_value=tensor)
        self._graph.register_initializer(narrowed)
        return narrowed
