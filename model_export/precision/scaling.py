"""int8's first layer reads values of one size: a shift and a scale for each channel stand before it, in float32.

An int8 tensor has one scale for all its values. A BatchNorm first in the network gave each input channel its own, and
was folded into the layer behind it: raw values of different sizes then meet weights of different sizes, a pixel that is
nearly always zero has a weight of 300, and one scale for each *output* channel can not hold both. Quantised as it is,
the book's network falls to chance on digits (accuracy 0.100, in float32 0.986), and to 0.41 on Fashion-MNIST (0.883).
With the layer in float32 instead, most of its weights would stay four bytes.

So where a Dense or Conv layer reads the instance itself, z = W·x + b is written as z = W′·x′ + b′ with

    x′ = (x − m)·s        W′ = W/s, for each input channel        b′ = b + W·m

in float64; in exact arithmetic nothing changes. m is the mean of each channel over the calibration instances, r the
largest |x − m|, w the channel's largest weight, and s = √(w/r): what is too large for 8 bits is shared evenly between
values and weights (Xiao et al. 2023, SmoothQuant, eq. 4 with α = 0.5; Nagel et al. 2019, Data-Free Quantization, 4.1).
A channel that never varied has no r: s makes its weight as large as the others' are. A Conv pads with zeros, and a
MatMul has no bias, so there only the scale is taken out and m = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_export.ir import ir
from model_export.precision.kept import layers_of
from model_export.precision.probe import run_probe

RESHAPING = frozenset({"Reshape", "Flatten", "Identity", "Squeeze", "Unsqueeze"})

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class _Scaling:
    """The shift and the scale of each input channel, float64 (channels,)."""

    shift: Doubles
    scale: Doubles


def standardise(model: ir.Model, instances: NDArray[np.float32]) -> tuple[ir.Model, str]:
    """Put the scaling in front of the layer that reads the instance; gives a new model, and the layer's name.

    Where no layer of a known form reads the instance, or it reads one channel only, the model comes back as it is, and
    the name is empty.

    Args:
        model: folded, float32.
        instances: training instances, float32 (N, *instance_shape).
    """
    copy = model.clone()
    layer = next((node for node in layers_of(copy) if _reads_instance(node)), None)
    if layer is None or not _is_plain(layer):
        return model, ""
    weight = _by_input_channel(layer)
    if len(weight) < 2:
        return model, ""
    values = np.concatenate([answers[0] for answers in run_probe(model, [str(_value(layer, 0).name)], instances)])
    _apply(copy.graph, layer, _choose(layer, weight, values.astype(np.float64)))
    return copy, layer.name or ""


def _reads_instance(layer: ir.Node) -> bool:
    """Whether nothing but reshaping stands between the model's input and the layer."""
    value = layer.inputs[0]
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type not in RESHAPING:
            return False
        value = producer.inputs[0]
    return value is not None and value.is_graph_input()


def _is_plain(layer: ir.Node) -> bool:
    attributes = layer.attributes
    if layer.op_type == "Gemm":
        plain = not attributes.get_int("transA", 0) and attributes.get_float("alpha", 1.0) == 1.0
        return plain and attributes.get_float("beta", 1.0) == 1.0
    if layer.op_type == "Conv":
        return attributes.get_int("group", 1) == 1
    return layer.inputs[1] is not None and layer.inputs[1].shape is not None and len(layer.inputs[1].shape) == 2


def _by_input_channel(layer: ir.Node) -> Doubles:
    """The layer's weights, float64, with the input channel as axis 0 and all others flat behind it."""
    axis = _input_axis(layer)
    weight = np.moveaxis(_constant(layer, 1), axis, 0)
    return weight.reshape(len(weight), -1)


def _input_axis(layer: ir.Node) -> int:
    """The axis of the weights that is summed over: 1 of a Conv, and of a Gemm that is written transposed."""
    transposed = layer.attributes.get_int("transB", 0)
    return 1 if layer.op_type == "Conv" or transposed else 0


def _choose(layer: ir.Node, weight: Doubles, values: Doubles) -> _Scaling:
    """By the reach of `values`, what the layer reads: (N, channels) or (N, channels, *space)."""
    axis = _channel_axis(layer, values.ndim)
    axes = tuple(other for other in range(values.ndim) if other != axis)
    shift = values.mean(axes) if layer.op_type == "Gemm" else np.zeros(values.shape[axis])
    along = [-1 if place == axis else 1 for place in range(values.ndim)]
    reach, largest = np.abs(values - shift.reshape(along)).max(axes), np.abs(weight).max(axis=1)
    shared = np.sqrt(largest * reach)
    usual = float(np.median(shared[shared > 0])) if shared.any() else 1.0
    varies, counts = reach > 0, largest > 0
    scale = np.where(varies, np.sqrt(largest / np.where(varies, reach, 1.0)), largest / usual)
    return _Scaling(shift=shift, scale=np.where(counts, scale, 1.0))


def _channel_axis(layer: ir.Node, rank: int) -> int:
    return 1 if layer.op_type == "Conv" else rank - 1


def _apply(graph: ir.Graph, layer: ir.Node, scaling: _Scaling) -> None:
    """Put Sub and Mul in front of the layer, and change its weights to match."""
    weight, axis = _constant(layer, 1), _input_axis(layer)
    along = [-1 if place == axis else 1 for place in range(weight.ndim)]
    channels = [-1, *[1] * (weight.ndim - 2)] if layer.op_type == "Conv" else [-1]
    if scaling.shift.any():
        _set_bias(graph, layer, (weight if axis == 1 else weight.T) @ scaling.shift)
        _insert(graph, layer, "Sub", scaling.shift.reshape(channels))
    _set_constant(graph, layer, 1, weight / scaling.scale.reshape(along))
    _insert(graph, layer, "Mul", scaling.scale.reshape(channels))


def _insert(graph: ir.Graph, layer: ir.Node, operator: str, constant: Doubles) -> None:
    """Let the layer read what it reads now, less or times a constant."""
    value, name = _value(layer, 0), f"{layer.name}.{'shift' if operator == 'Sub' else 'scale'}"
    node = ir.node(operator, [value, _new_constant(graph, name, constant)], name=f"{name}.{operator.lower()}")
    result = node.outputs[0]
    result.name, result.shape, result.type = f"{name}d", value.shape, ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(layer, node)
    layer.replace_input_with(0, result)


def _set_bias(graph: ir.Graph, layer: ir.Node, added: Doubles) -> None:
    has_bias = len(layer.inputs) > 2 and layer.inputs[2] is not None
    if not has_bias:
        layer.resize_inputs(3)
    _set_constant(graph, layer, 2, (_constant(layer, 2) if has_bias else 0.0) + added)


def _set_constant(graph: ir.Graph, layer: ir.Node, index: int, values: Doubles) -> None:
    """Give the layer a constant of its own: another reader of the old one keeps that."""
    old = layer.inputs[index]
    new = _new_constant(graph, f"{layer.name}.{'weight' if index == 1 else 'bias'}.standardised", values)
    layer.replace_input_with(index, new)
    if old is not None and not old.uses() and not old.is_graph_output():
        name = str(old.name)
        del graph.initializers[name]
        new.name = name


def _new_constant(graph: ir.Graph, name: str, values: Doubles) -> ir.Value:
    tensor = ir.tensor(values.astype(np.float32), name=name)
    value = ir.val(name, dtype=ir.DataType.FLOAT, shape=ir.Shape(values.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _constant(layer: ir.Node, index: int) -> Doubles:
    tensor = _value(layer, index).const_value
    if tensor is None:
        raise TypeError(f"input {index} of {layer.name} is no constant")
    return tensor.numpy().astype(np.float64)


def _value(layer: ir.Node, index: int) -> ir.Value:
    value = layer.inputs[index]
    if value is None:
        raise TypeError(f"{layer.name} has no input {index}")
    return value
