"""Writes an ONNX file one weight at a time: protobuf's own way holds the whole model twice more before it writes.

A message is its fields in any order, each a key, a length and the content (protobuf.dev/programming-guides/encoding).
So the file is: the model without its graph, then the graph without its large weights, then each weight. The lengths
are known before any weight is computed, so that those of a fold are rounded only as they are written.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from model_export.fold.nodes import FLOATS
from model_export.ir import ir

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9  # field numbers in onnx.proto: ModelProto, GraphProto, TensorProto
LENGTH_DELIMITED = 2
LARGE_BYTES = 1024


def write_model(model: ir.Model, path: Path) -> None:
    """Write `model` to `path`, all weights inside. Raises OSError; ValueError where a weight is not as long as said."""
    small, large = _apart(model)
    proto = ir.to_proto(small)
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    headers = {name: _header(name, tensor) for name, tensor in large.items()}
    num_bytes = len(graph) + sum(_size_of_field(_size(headers[name], tensor)) for name, tensor in large.items())
    with path.open("wb") as file:
        file.write(proto.SerializeToString() + _key(GRAPH) + _varint(num_bytes) + graph)
        for name, tensor in large.items():
            _write_weight(file, headers[name], tensor)


def _apart(model: ir.Model) -> tuple[ir.Model, dict[str, ir.TensorProtocol]]:
    """A copy of the model without its large weights, and these by name."""
    small = model.clone()
    large = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and _is_plain(value.const_value)
    }
    for name in large:
        del small.graph.initializers[name]
    for node, twin in zip(model.graph.all_nodes(), small.graph.all_nodes(), strict=True):
        twin.name = node.name  # onnx-ir gives names to nodes that have none
    return small, large


def _is_plain(tensor: ir.TensorProtocol) -> bool:
    """Whether a weight is large, and nothing but a dtype, a shape and numbers."""
    return (
        tensor.dtype in FLOATS and tensor.nbytes > LARGE_BYTES and not tensor.doc_string and not tensor.metadata_props
    )


def _header(name: str, tensor: ir.TensorProtocol) -> bytes:
    """All of a TensorProto but its numbers."""
    import onnx

    header = onnx.TensorProto(name=name, dims=tensor.shape.numpy(), data_type=tensor.dtype)
    return bytes(header.SerializeToString())


def _size(header: bytes, tensor: ir.TensorProtocol) -> int:
    return len(header) + _size_of_field(tensor.nbytes)


def _size_of_field(num_bytes: int) -> int:
    return len(_key(INITIALIZER)) + len(_varint(num_bytes)) + num_bytes


def _write_weight(file: BinaryIO, header: bytes, tensor: ir.TensorProtocol) -> None:
    content = tensor.tobytes()
    if len(content) != tensor.nbytes:
        raise ValueError(f"{tensor.name} has {len(content)} bytes, expected {tensor.nbytes}")
    file.write(_key(INITIALIZER) + _varint(_size(header, tensor)) + header + _key(RAW_DATA) + _varint(len(content)))
    file.write(content)


def _key(field: int) -> bytes:
    return _varint(field << 3 | LENGTH_DELIMITED)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    content = bytearray()
    while number > 0x7F:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*content, number])
