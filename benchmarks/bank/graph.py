"""Builds the ONNX graph of one case: nodes, weights and inputs are collected by the functions that draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.bank.draw import Draw, numpy_dtype

EPS = 2.0**-17  # close to the usual 1e-5, and exact in float32


@dataclass
class Graph:
    """A graph in the making, or the body of a node (then `prefix` keeps its names apart)."""

    draw: Draw
    prefix: str = ""
    opset: int = 18
    ir_version: int = 9
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    overridable: set[str] = field(default_factory=set)
    stated: dict[str, tuple[str | int, ...]] = field(default_factory=dict)

    @property
    def elem_type(self) -> int:
        """ONNX's number for the dtype of the draw."""
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(numpy_dtype(self.draw.dtype))))

    # --- values ----------------------------------------------------------------------------------------------------

    def n(self, size: int) -> int:
        """A size: this one, or the one of all where all coincide."""
        return self.draw.size(size)

    def input(self, *shape: int, elem_type: int | None = None, batch: str | None = "batch") -> str:
        """An input of the model; its first axis is the batch, unless that is None."""
        name = f"x{len(self.inputs) or ''}"
        axes: list[str | int | None] = [*([] if batch is None else [batch]), *shape]
        self.inputs.append(helper.make_tensor_value_info(name, elem_type or self.elem_type, axes))
        return name

    def constant(self, values: Any, name: str = "") -> str:
        """An initializer of the case's dtype."""
        return self._initializer(self.draw.rounded(values), name)

    def weight(self, *shape: int) -> str:
        """An initializer of normal numbers with standard deviation ½."""
        return self.constant(self.draw.rng.normal(scale=0.5, size=shape))

    def ints(self, *values: int) -> str:
        """An initializer of int64, one axis."""
        return self._initializer(np.array(values, dtype=np.int64))

    def _initializer(self, values: NDArray[Any], name: str = "") -> str:
        name = name or f"{self.prefix}w{len(self.weights)}"
        self.weights[name] = values
        return name

    # --- nodes -----------------------------------------------------------------------------------------------------

    def op(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node with one output."""
        return self.ops(op, *inputs, name=name, num_outputs=1, **attributes)[0]

    def ops(self, op: str, *inputs: str, name: str = "", num_outputs: int, **attributes: Any) -> list[str]:
        """A node with several outputs."""
        name = name or f"{self.prefix}{op.lower()}{len(self.nodes)}"
        outputs = [f"{name}_out{index or ''}" for index in range(num_outputs)]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))
        return outputs

    def gemm(self, x: str, inputs: int, outputs: int, *, bias: bool = True, **attributes: Any) -> str:
        """A dense layer; the weight is (inputs, outputs)."""
        biases = [self.weight(outputs)] if bias else []
        return self.op("Gemm", x, self.weight(inputs, outputs), *biases, **attributes)

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: Sequence[int] = (3, 3), *, bias: bool = True, **attributes: Any
    ) -> str:
        """A convolution; `inputs` counts channels, not those of a group."""
        biases = [self.weight(outputs)] if bias else []
        weight = self.weight(outputs, inputs // attributes.get("group", 1), *kernel)
        return self.op("Conv", x, weight, *biases, **attributes)

    def conv_transpose(
        self, x: str, inputs: int, outputs: int, kernel: Sequence[int] = (3, 3), *, bias: bool = True, **attributes: Any
    ) -> str:
        """A transposed convolution, whose weight has the inputs first."""
        biases = [self.weight(outputs)] if bias else []
        weight = self.weight(inputs, outputs // attributes.get("group", 1), *kernel)
        return self.op("ConvTranspose", x, weight, *biases, **attributes)

    def batchnorm(
        self,
        x: str,
        channels: int,
        name: str = "bn",
        *,
        positive: bool = False,
        zero_shift: bool = False,
        **attributes: Any,
    ) -> str:
        """A BatchNorm with γ of both signs unless `positive`, μ ≠ 0, and σ² from 1e-2 to 1e2."""
        parameters = batchnorm_parameters(self.draw, channels, positive=positive, zero_shift=zero_shift)
        names = [self.constant(values, f"{name}.{what}") for what, values in parameters.items()]
        return self.op("BatchNormalization", x, *names, name=name, **{"epsilon": EPS} | attributes)

    # --- the whole -------------------------------------------------------------------------------------------------

    def always(self, x: str) -> str:
        """A boolean that is true whenever the numbers are of usual size, though no tool can know it."""
        total = self.op("ReduceSum", x, keepdims=0)
        return self.op("Less", total, self.constant(6e4))

    def body(self, prefix: str) -> Graph:
        """An empty body for a node of this graph."""
        return Graph(self.draw, prefix=f"{prefix}_", opset=self.opset)

    def body_proto(self, output: str) -> onnx.GraphProto:
        """This body, whose one output is `output`."""
        result = helper.make_tensor_value_info(output, self.elem_type, None)
        return helper.make_graph(self.nodes, self.prefix.rstrip("_"), [], [result], self.initializers())

    def model(self) -> onnx.ModelProto:
        """The model, with the outputs' shapes stated and nothing in between."""
        graph = helper.make_graph(
            self.nodes,
            "graph",
            self.inputs + [_value_info(name, self.weights[name]) for name in sorted(self.overridable)],
            [helper.make_tensor_value_info(name, self.elem_type, None) for name in self.outputs],
            self.initializers(),
        )
        local = [helper.make_opsetid("local", 1)] if self.functions else []
        proto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset), *local],
            ir_version=self.ir_version,
            functions=self.functions,
        )
        return _with_output_shapes(proto, self.stated)

    def initializers(self) -> list[onnx.TensorProto]:
        """The weights, as a graph holds them."""
        return [numpy_helper.from_array(values, name) for name, values in self.weights.items()]


def batchnorm_parameters(
    draw: Draw, channels: int, *, positive: bool = False, zero_shift: bool = False
) -> dict[str, NDArray[Any]]:
    """γ, β, μ and σ². With `zero_shift` β = μ·γ/σ holds exactly: σ is a power of two, γ and μ are few quarters."""
    rng = draw.rng
    signs = np.ones(channels) if positive else np.where((np.arange(channels) + rng.integers(2)) % 2, -1.0, 1.0)
    if zero_shift:
        sigma = 2.0 ** rng.integers(-2, 3, size=channels)
        scale, mean = signs * rng.integers(2, 8, size=channels) / 4, rng.integers(-8, 9, size=channels) / 4
        return {"scale": scale, "offset": mean * scale / sigma, "mean": mean, "var": sigma**2 - EPS}
    return {
        "scale": signs * rng.uniform(0.5, 1.5, size=channels),
        "offset": rng.normal(size=channels),
        "mean": rng.normal(size=channels),
        "var": 10.0 ** rng.uniform(-2, 2, size=channels),
    }


def make_feeds(model: onnx.ModelProto, *, batch: int, seed: int = 1) -> dict[str, NDArray[Any]]:
    """Numbers for the model's inputs: normal ones, or the small integers that indices need.

    An initializer that is an input too is overridden, but for files of IR version 3, where all had to be inputs.
    """
    rng = np.random.default_rng(seed)
    given = {weight.name for weight in model.graph.initializer} if model.ir_version < 4 else set()
    return {value.name: _feed(value, batch, rng) for value in model.graph.input if value.name not in given}


def _feed(value: onnx.ValueInfoProto, batch: int, rng: np.random.Generator) -> NDArray[Any]:
    tensor = value.type.tensor_type
    shape = [batch if axis.dim_param else axis.dim_value for axis in tensor.shape.dim]
    if tensor.elem_type == TensorProto.INT64:
        return rng.integers(0, 3, size=shape)
    numbers = rng.normal(size=shape).astype(np.float32)
    return np.asarray(numbers.astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


def _value_info(name: str, values: NDArray[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape)


def _with_output_shapes(proto: onnx.ModelProto, stated: dict[str, tuple[str | int, ...]]) -> onnx.ModelProto:
    """Shapes as inferred, or as `stated` where onnx can not infer them."""
    inferred = {output.name: output for output in onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output}
    for output in proto.graph.output:
        elem_type = output.type.tensor_type.elem_type
        known = inferred[output.name]
        shape = stated.get(output.name)
        output.CopyFrom(known if shape is None else helper.make_tensor_value_info(output.name, elem_type, shape))
    return proto
