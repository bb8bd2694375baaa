"""fp16 and bf16 rehearsed on the CPU: the same graph with every narrow value really rounded, and sums in float32.

ONNX Runtime's CPU provider computes fp16 nodes in float32 and takes the casts between them away, so on the CPU only the
weights are rounded: an input of 2049 stays 2049, where a GPU takes it for 2048. What was verified on the CPU would then
not be what a GPU serves. Here each value goes through a Cast to the narrow type and back to float32, which every
provider carries out, and the nodes compute in float32, as the tensor cores of GPUs sum.
"""

from __future__ import annotations

import numpy as np

from model_export.ir import ir
from model_export.precision.halves import Half


def rehearse(model: ir.Model, half: Half) -> ir.Model:
    """Give `model`, as `narrow` made it, in float32 with the rounding spelled out; it is left as it is."""
    copy = model.clone()
    for value in copy.graph.initializers.values():
        if value.dtype == half.onnx_type:
            wide = value.const_value.numpy().astype(np.float32)  # type: ignore[union-attr]
            value.const_value = ir.tensor(wide, name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in list(copy.graph):
        for value in node.outputs:
            if value.dtype == half.onnx_type:
                _round(copy.graph, node, value, half)
    return copy


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value, half: Half) -> None:
    """Let the readers of `value` read it rounded."""
    readers = [(usage.node, usage.idx) for usage in value.uses()]
    is_rounded = node.op_type == "Cast"
    narrow = value if is_rounded else _cast(graph, node, value, half.onnx_type)
    back = _cast(graph, narrow.producer() or node, narrow, ir.DataType.FLOAT)
    for reader, index in readers:
        reader.replace_input_with(index, back)
    if not is_rounded:
        value.type = ir.TensorType(ir.DataType.FLOAT)


def _cast(graph: ir.Graph, after: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    name = f"{value.name}.{dtype.name.lower()}"
    cast = ir.node("Cast", [value], {"to": dtype}, name=f"{name}.cast")
    cast.outputs[0].name, cast.outputs[0].shape, cast.outputs[0].type = name, value.shape, ir.TensorType(dtype)
    graph.insert_after(after, cast)
    return cast.outputs[0]
