"""Computes a few nodes of a graph in float64, as they are or as an edit would leave them: the witness of every fold.

Written from the operators' definitions, not from the algebra of folding, in numpy; what is not written here is run by
ONNX's reference implementation. A recurrent layer is taken as what it makes of its input before the recurrence begins,
W·x and its bias, for only through that does it depend on its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from model_export.fold.edit import Edit
from model_export.fold.nodes import FLOATS, float_of, input_of, int_of, ints_of, is_op, string_of
from model_export.fold.reference import evaluate_by_reference
from model_export.fold.scope import Scope
from model_export.ir import ir

Array = np.ndarray[Any, np.dtype[Any]]
Inputs = list[Array | None]
Values = dict[ir.Value, Array]


class Evaluation:
    """The values of some nodes of a scope for given inputs, as `edit` would leave them."""

    def __init__(self, scope: Scope, inputs: Values, edit: Edit) -> None:
        self._scope = scope
        self._edit = edit
        self.values = dict(inputs)
        self.sizes = _sizes_of_names(scope, inputs)

    def run(self, nodes: Iterable[ir.Node]) -> Values:
        """Compute the outputs of these nodes, which come in the order of the data."""
        for node in nodes:
            outputs = self._outputs(node)
            self.values |= dict(zip(node.outputs, outputs, strict=False))
        return self.values

    def _outputs(self, node: ir.Node) -> list[Array]:
        inputs = [self._input(node, index) for index in range(self._num_inputs(node))]
        if node in self._edit.bypassed:
            return [_present(inputs, self._edit.bypassed[node])]
        outputs = [np.asarray(output) for output in self._compute(node, inputs)]
        return [self._shifted(value, output) for value, output in zip(node.outputs, outputs, strict=False)]

    def _num_inputs(self, node: ir.Node) -> int:
        return max([len(node.inputs), *(index + 1 for owner, index in self._edit.constants if owner is node)])

    def _input(self, node: ir.Node, index: int) -> Array | None:
        if (node, index) in self._edit.constants:
            return self._edit.constants[node, index].compute()
        value = input_of(node, index)
        if value is None or value in self.values:
            return None if value is None else self.values[value]
        tensor = self._scope.constants.tensor(value)
        if tensor is None:
            return None
        if tensor.dtype in FLOATS:
            return self._scope.constants.array(value, "an input")
        return tensor.numpy()

    def _shifted(self, value: ir.Value, output: Array) -> Array:
        shift = self._edit.shifts.get(value)
        return output if shift is None else output + shift.compute()

    def _compute(self, node: ir.Node, inputs: Inputs) -> list[Array]:
        if is_op(node, *RESHAPES):
            return [np.reshape(_present(inputs, 0), self._target(node, _present(inputs, 0), inputs))]
        if is_op(node, "Expand"):
            return [np.broadcast_to(_present(inputs, 0), self._target(node, _present(inputs, 0), inputs))]
        if is_op(node, "Split"):
            return self._split(node, _present(inputs, 0))
        if is_op(node, "Gemm"):
            return [_gemm(node, inputs, self._edit)]
        if is_op(node, *KERNELS) and not _gives_indices_or_rounds_up(node):
            return [KERNELS[node.op_type](node, inputs)] * len(node.outputs)
        return evaluate_by_reference(node, inputs, self._scope.opset)

    def _target(self, node: ir.Node, data: Array, inputs: Inputs) -> tuple[int, ...]:
        """The shape that a reshape gives: proved lengths, with the names bound to what the inputs have."""
        lengths = self._scope.shapes.of(node.outputs[0])
        if lengths is None:
            return _stated_target(data, _present(inputs, 1))
        if node.op_type == "Expand":
            missing = len(lengths) - data.ndim
            own = (1,) * missing + data.shape
            return tuple(self._size(length, own[k]) for k, length in enumerate(lengths))
        return tuple(self._size(length, -1) for length in lengths)

    def _size(self, length: int | str | None, default: int) -> int:
        return length if isinstance(length, int) else self.sizes.get(length or "", default)

    def _split(self, node: ir.Node, data: Array) -> list[Array]:
        axis = int_of(node, "axis", 0)
        lengths = [self._scope.shapes.length(output, axis % data.ndim) for output in node.outputs]
        sizes = [length for length in lengths if isinstance(length, int)]
        if len(sizes) != len(lengths) or sum(sizes) != data.shape[axis]:
            return list(np.array_split(data, len(node.outputs), axis=axis))
        return list(np.split(data, np.cumsum(sizes)[:-1], axis=axis))


def _stated_target(data: Array, target: Array) -> tuple[int, ...]:
    return tuple(data.shape[k] if length == 0 else int(length) for k, length in enumerate(target))


def _sizes_of_names(scope: Scope, inputs: Values) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for value, array in inputs.items():
        lengths = scope.shapes.of(value) or ()
        sizes |= {name: size for name, size in zip(lengths, array.shape, strict=False) if isinstance(name, str)}
    return sizes


def _present(inputs: Inputs, index: int) -> Array:
    array = inputs[index] if index < len(inputs) else None
    if array is None:
        raise ValueError(f"input {index} is missing")
    return array


# --- the operators ---------------------------------------------------------------------------------------------------


def _gemm(node: ir.Node, inputs: Inputs, edit: Edit) -> Array:
    dropped = edit.dropped.get(node, ())
    alpha, beta = (1.0 if name in dropped else float_of(node, name, 1.0) for name in ("alpha", "beta"))
    a = _present(inputs, 0).T if int_of(node, "transA", 0) else _present(inputs, 0)
    b = _present(inputs, 1).T if int_of(node, "transB", 0) else _present(inputs, 1)
    c = inputs[2] if len(inputs) > 2 else None
    return alpha * (a @ b) + (0.0 if c is None else beta * c)


def _batchnorm(node: ir.Node, inputs: Inputs) -> Array:
    x = _present(inputs, 0)
    scale, offset, mean, var = (_present(inputs, k).reshape(1, -1, *(1,) * (x.ndim - 2)) for k in (1, 2, 3, 4))
    return (x - mean) / np.sqrt(var + float_of(node, "epsilon", 1e-5)) * scale + offset


def _convolution(node: ir.Node, inputs: Inputs) -> Array:
    """Cross-correlation: each output is the sum over the taps of what lies under them."""
    x, weight = _present(inputs, 0), _present(inputs, 1)
    windows = _windows(node, x, weight.shape[2:], 0.0)
    return _with_bias(_summed_under_taps(windows, weight, int_of(node, "group", 1)), inputs)


def _windows(node: ir.Node, x: Array, kernel: tuple[int, ...], padding: float) -> Array:
    """What lies under the taps of a kernel at each of its places: (batch, channels, *places, *taps)."""
    strides, dilations = _steps(node, "strides", kernel), _steps(node, "dilations", kernel)
    pads = [(0, 0), (0, 0), *_pads(node, x.shape[2:], kernel, strides, dilations)]
    padded = np.pad(x, pads, constant_values=padding)
    extent = tuple(step * (size - 1) + 1 for size, step in zip(kernel, dilations, strict=True))
    windows = sliding_window_view(padded, extent, axis=tuple(range(2, x.ndim)))
    steps: tuple[slice, ...] = tuple(slice(None, None, step) for step in (1, 1, *strides, *dilations))
    return windows[steps]


def _summed_under_taps(windows: Array, weight: Array, groups: int) -> Array:
    """`windows` is (batch, channels, *places, *taps); a matrix product for each group."""
    batch, channels = windows.shape[:2]
    num_spatial = weight.ndim - 2
    places = windows.shape[2 : 2 + num_spatial]
    apart = windows.reshape(batch, groups, channels // groups, math.prod(places), math.prod(weight.shape[2:]))
    columns = apart.transpose(0, 1, 2, 4, 3).reshape(batch, groups, -1, math.prod(places))
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    return (rows @ columns).reshape(batch, weight.shape[0], *places)


def _gives_indices_or_rounds_up(node: ir.Node) -> bool:
    """Whether a MaxPool is of the kind that is left to the reference."""
    return is_op(node, "MaxPool") and (len(node.outputs) > 1 or bool(int_of(node, "ceil_mode", 0)))


def _max_pool(node: ir.Node, inputs: Inputs) -> Array:
    """The largest under each window; what is padded never is. The reference fails for some paddings."""
    x = _present(inputs, 0)
    kernel = ints_of(node, "kernel_shape") or ()
    return np.asarray(_windows(node, x, kernel, -np.inf).max(axis=tuple(range(-len(kernel), 0))))


def _steps(node: ir.Node, name: str, kernel: tuple[int, ...]) -> tuple[int, ...]:
    return ints_of(node, name) or (1,) * len(kernel)


def _pads(
    node: ir.Node, sizes: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], steps: tuple[int, ...]
) -> list[tuple[int, int]]:
    auto_pad = string_of(node, "auto_pad", "NOTSET")
    if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        extents = [step * (size - 1) + 1 for size, step in zip(kernel, steps, strict=True)]
        totals = [
            max((math.ceil(n / s) - 1) * s + extent - n, 0)
            for n, s, extent in zip(sizes, strides, extents, strict=True)
        ]
        halves = [total // 2 if auto_pad == "SAME_UPPER" else (total + 1) // 2 for total in totals]
        return [(half, total - half) for half, total in zip(halves, totals, strict=True)]
    pads = ints_of(node, "pads") if auto_pad == "NOTSET" else None
    pads = pads or (0,) * (2 * len(kernel))
    return list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))


def _with_bias(y: Array, inputs: Inputs) -> Array:
    bias = inputs[2] if len(inputs) > 2 else None
    return y if bias is None else y + bias.reshape(1, -1, *(1,) * (y.ndim - 2))


def _transposed_convolution(node: ir.Node, inputs: Inputs) -> Array:
    """Each input is spread over the taps; then padding cuts the edges off."""
    x, weight = _present(inputs, 0), _present(inputs, 1)
    kernel, groups = weight.shape[2:], int_of(node, "group", 1)
    strides, dilations = _steps(node, "strides", kernel), _steps(node, "dilations", kernel)
    sizes = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(x.shape[2:], strides, dilations, kernel, strict=True)]
    num_outputs = weight.shape[1] * groups
    y = np.zeros((x.shape[0], num_outputs, *sizes))
    parts = x.reshape(x.shape[0], groups, x.shape[1] // groups, -1)
    rows = weight.reshape(groups, x.shape[1] // groups, weight.shape[1], *kernel)
    for tap in np.ndindex(*kernel):
        product = np.einsum("bgip,gio->bgop", parts, rows[(slice(None), slice(None), slice(None), *tap)])
        places = tuple(
            slice(k * d, k * d + (n - 1) * s + 1, s)
            for k, d, n, s in zip(tap, dilations, x.shape[2:], strides, strict=True)
        )
        y[(slice(None), slice(None), *places)] += product.reshape(x.shape[0], num_outputs, *x.shape[2:])
    return _with_bias(_without_edges(y, node, kernel), inputs)


def _without_edges(y: Array, node: ir.Node, kernel: tuple[int, ...]) -> Array:
    """Only where pads are stated: where they follow from a wanted shape, more or less of an edge changes no map."""
    if string_of(node, "auto_pad", "NOTSET") != "NOTSET" or ints_of(node, "output_shape"):
        return y
    pads, longer = ints_of(node, "pads") or (0,) * (2 * len(kernel)), ints_of(node, "output_padding")
    y = np.pad(y, [(0, 0), (0, 0), *((0, more) for more in longer or (0,) * len(kernel))])
    ends = zip(pads[: len(kernel)], pads[len(kernel) :], y.shape[2:], strict=True)
    return y[(slice(None), slice(None), *(slice(front, size - back) for front, back, size in ends))]


def _recurrent(node: ir.Node, inputs: Inputs) -> Array:  # noqa: ARG001
    x, weight = _present(inputs, 0), _present(inputs, 1)
    bias = inputs[3] if len(inputs) > 3 and inputs[3] is not None else np.zeros((weight.shape[0], 2 * weight.shape[1]))
    return np.asarray(np.einsum("...i,dhi->...dh", x, weight) + bias[:, : weight.shape[1]])


def _leaky(node: ir.Node, inputs: Inputs) -> Array:
    x = _present(inputs, 0)
    return np.asarray(np.where(x < 0, float_of(node, "alpha", 0.01) * x, x))


def _gather(node: ir.Node, inputs: Inputs) -> Array:
    return np.take(_present(inputs, 0), _present(inputs, 1).astype(np.int64), axis=int_of(node, "axis", 0))


def _concat(node: ir.Node, inputs: Inputs) -> Array:
    return np.concatenate([_present(inputs, k) for k in range(len(inputs))], axis=int_of(node, "axis", 1))


def _two(operator: Callable[[Array, Array], Array]) -> Callable[[ir.Node, Inputs], Array]:
    return lambda node, inputs: np.asarray(operator(_present(inputs, 0), _present(inputs, 1)))  # noqa: ARG005


def _first(node: ir.Node, inputs: Inputs) -> Array:  # noqa: ARG001
    """What hands its input on."""
    return _present(inputs, 0)


def _cast(node: ir.Node, inputs: Inputs) -> Array:
    """Between floats it hands its input on, for here everything is float64; to anything else it is what it is."""
    dtype = ir.DataType(int_of(node, "to", 0))
    return _present(inputs, 0) if dtype in FLOATS else _present(inputs, 0).astype(dtype.numpy())


def _transpose(node: ir.Node, inputs: Inputs) -> Array:
    return np.transpose(_present(inputs, 0), ints_of(node, "perm"))


def _mean_over_space(node: ir.Node, inputs: Inputs) -> Array:  # noqa: ARG001
    x = _present(inputs, 0)
    return np.asarray(x.mean(axis=tuple(range(2, x.ndim)), keepdims=True))


def _max_over_space(node: ir.Node, inputs: Inputs) -> Array:  # noqa: ARG001
    """The reference loses axes."""
    x = _present(inputs, 0)
    return np.asarray(x.max(axis=tuple(range(2, x.ndim)), keepdims=True))


RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
KERNELS: dict[str, Callable[[ir.Node, Inputs], Array]] = {
    "Add": _two(np.add),
    "BatchNormalization": _batchnorm,
    "Cast": _cast,
    "Concat": _concat,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Div": _two(np.divide),
    "Dropout": _first,
    "GRU": _recurrent,
    "Gather": _gather,
    "GlobalAveragePool": _mean_over_space,
    "GlobalMaxPool": _max_over_space,
    "Identity": _first,
    "LSTM": _recurrent,
    "LeakyRelu": _leaky,
    "MatMul": _two(np.matmul),
    "MaxPool": _max_pool,
    "Mul": _two(np.multiply),
    "Neg": lambda node, inputs: -_present(inputs, 0),  # noqa: ARG005
    "RNN": _recurrent,
    "Relu": lambda node, inputs: np.maximum(_present(inputs, 0), 0),  # noqa: ARG005
    "Sub": _two(np.subtract),
    "Transpose": _transpose,
}
