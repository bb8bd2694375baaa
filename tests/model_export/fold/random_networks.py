"""Draws random networks, one node after another, on values whose numbers are known while the network grows.

Every choice is a number below a bound, so that hypothesis can draw (and shrink) it as well as a seeded generator. All
axes but the batch have one size, 3 or 4, wherever the operators let them: a mix-up of axes then fits, and has to be
seen in the answers. A node that does not run, or whose result is too large, is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from benchmarks.bank.oracle import ConvTranspose

Array = NDArray[Any]
Arrays = tuple[Array, ...]  # one value, at each batch size
Choose = Callable[[int], int]  # a number from 0 up to the bound, without it
T = TypeVar("T")

BATCHES = (1, 3)
MAX_SIZE = 3000  # elements of a value
MAX_VALUE = 1e4  # beyond it, rounding could be taken for a wrong fold


class Impossible(Exception):
    """The node that was drawn can not follow what there is."""


@dataclass
class Network:
    """A network in the making: what every value is at each batch size, and which ones may be gone on with."""

    choose: Choose
    rng: np.random.Generator
    size: int
    opset: int
    dtype: Any = np.float64
    prefix: str = ""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    live: list[str] = field(default_factory=list)
    captured: dict[str, None] = field(default_factory=dict)
    arrays: dict[str, Arrays] = field(default_factory=dict)

    # --- choices -----------------------------------------------------------------------------------------------------

    def pick(self, options: Sequence[T]) -> T:
        if not options:
            raise Impossible
        return options[self.choose(len(options))]

    def maybe(self, one_in: int) -> bool:
        return self.choose(one_in) == one_in - 1

    def value(self, *ranks: int) -> str:
        """A value of one of these ranks, rather a young one."""
        fitting = [name for name in self.live if self.rank(name) in ranks]
        return self.pick(fitting) if self.maybe(4) or not fitting else fitting[-1]

    def rank(self, name: str) -> int:
        return int(self.arrays[name][0].ndim)

    def shape(self, name: str) -> tuple[int | None, ...]:
        """None for an axis that grows with the batch."""
        small, large = (array.shape for array in self.arrays[name])
        return tuple(n if n == m else None for n, m in zip(small, large, strict=True))

    def length(self, name: str, axis: int) -> int:
        length = self.shape(name)[axis]
        if length is None:
            raise Impossible
        return length

    # --- constants ---------------------------------------------------------------------------------------------------

    def normal(self, *shape: int) -> str:
        return self.constant(self.rng.normal(scale=0.6, size=shape))

    def constant(self, array: Any, *, shared: bool = True) -> str:
        """An initializer, now and then one that is there already, or a Constant, or an expression of constants."""
        array = np.asarray(array, dtype=self.dtype)
        same = [name for name in self.constants if self.arrays[name][0].shape == array.shape and shared]
        if same and self.maybe(6):
            return self.pick(same)
        name = CONSTANTS[self.choose(len(CONSTANTS)) if self.maybe(4) else 0](self, array)
        self.constants += [name] if shared else []
        return name

    def initializer(self, array: Array) -> str:
        name = f"{self.prefix}w{len(self.initializers)}"
        self.initializers.append(name)
        self.arrays[name] = (array,) * len(BATCHES)
        return name

    def ints(self, *values: int) -> str:
        return self.initializer(np.array(values, dtype=np.int64))

    # --- nodes -------------------------------------------------------------------------------------------------------

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output to go on with."""
        return self.ops(op, *inputs, num_outputs=1, **attributes)[0]

    def ops(self, op: str, *inputs: str, num_outputs: int, **attributes: Any) -> list[str]:
        outputs = self.quiet_ops(op, *inputs, num_outputs=num_outputs, **attributes)
        self.live += [name for name in outputs if self.arrays[name][0].dtype == self.dtype]
        return outputs

    def quiet_ops(self, op: str, *inputs: str, num_outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node whose outputs are no values to go on with. Raises Impossible where it does not run."""
        name = f"{self.prefix}{op.lower()}{len(self.nodes)}"
        outputs = [f"{name}_out{k or ''}" for k in range(num_outputs)]
        self.take(helper.make_node(op, inputs, outputs, name=name, **attributes))
        return outputs

    def take(self, node: onnx.NodeProto, captured: Sequence[str] = ()) -> None:
        names = [name for name in dict.fromkeys([*node.input, *captured]) if name]
        feeds = [{name: self.arrays[name][k] for name in names} for k in range(len(BATCHES))]
        results = list(zip(*(evaluate(node, each, self.opset) for each in feeds), strict=True))
        for arrays in results:
            refuse_unfit(arrays)
        self.nodes.append(node)
        self.arrays |= dict(zip(node.output, results, strict=True))

    # --- the whole ---------------------------------------------------------------------------------------------------

    def proto(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """The model with these outputs and nothing stated in between."""
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [self._info(name) for name in self.inputs],
            [self._info(name) for name in outputs],
            [numpy_helper.from_array(self.arrays[name][0], name) for name in self.initializers],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    def _info(self, name: str) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(self.arrays[name][0].dtype)
        given = name in self.inputs
        lengths = [("batch" if given else f"free{k}") if n is None else n for k, n in enumerate(self.shape(name))]
        return helper.make_tensor_value_info(name, kind, lengths)

    def feeds(self, k: int) -> dict[str, Array]:
        return {name: self.arrays[name][k] for name in self.inputs}


def evaluate(node: onnx.NodeProto, feeds: dict[str, Array], opset: int) -> list[Array]:
    """One node by onnx.reference. Raises Impossible whatever goes wrong: it is not ours."""
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), None) for n, a in feeds.items()]
    results = [onnx.ValueInfoProto(name=name) for name in node.output]
    model = helper.make_model(
        helper.make_graph([node], "node", infos, results), opset_imports=[helper.make_opsetid("", opset)]
    )
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(y) for y in ReferenceEvaluator(model, new_ops=[ConvTranspose]).run(None, feeds)]
    except Exception as err:
        raise Impossible from err


def refuse_unfit(arrays: Arrays) -> None:
    """Nothing empty, large or infinite; one axis at most that grows with the batch."""
    small, large = arrays
    grows = [(n, m) for n, m in zip(small.shape, large.shape, strict=True) if n != m]
    if small.size == 0 or large.size > MAX_SIZE or len(grows) > 1 or any(n * BATCHES[1] != m for n, m in grows):
        raise Impossible
    if small.dtype.kind == "f" and any(not np.abs(array.astype(np.float64)).max() <= MAX_VALUE for array in arrays):
        raise Impossible


# --- how constants are written ---------------------------------------------------------------------------------------


def _initializer(net: Network, array: Array) -> str:
    return net.initializer(array)


def _constant_node(net: Network, array: Array) -> str:
    return net.quiet_ops("Constant", value=numpy_helper.from_array(array))[0]


def _sum(net: Network, array: Array) -> str:
    part = net.rng.normal(size=array.shape).astype(array.dtype)
    return net.quiet_ops("Add", net.initializer(np.asarray(array - part)), net.initializer(part))[0]


def _reshaped(net: Network, array: Array) -> str:
    return net.quiet_ops("Reshape", net.initializer(array.reshape(-1)), net.ints(*array.shape))[0]


def _handed_on(net: Network, array: Array) -> str:
    return net.quiet_ops("Identity", net.initializer(array))[0]


def _product(net: Network, array: Array) -> str:
    if array.ndim < 2:
        raise Impossible
    eye = np.eye(array.shape[-1], dtype=array.dtype)
    return net.quiet_ops("MatMul", net.initializer(array), net.initializer(eye))[0]


def _normalised(net: Network, array: Array) -> str:
    """A BatchNorm that sees constants only."""
    if array.ndim < 2:
        raise Impossible
    names = [net.initializer(values) for values in batchnorm_parameters(net, array.shape[1])]
    return net.quiet_ops("BatchNormalization", _product(net, array), *names)[0]


CONSTANTS = (_initializer, _constant_node, _sum, _reshaped, _handed_on, _product, _normalised)


# --- layers ----------------------------------------------------------------------------------------------------------


def batchnorm_parameters(net: Network, channels: int) -> tuple[Array, ...]:
    """γ of both signs, now and then zero or positive, β, μ, and σ² over a wide range; now and then no shift at all."""
    rng, kind = net.rng, net.choose(6)
    var = 10.0 ** rng.uniform(-3, 3, size=channels)
    scale, offset, mean = rng.normal(size=(3, channels)) + 0.1
    scale *= np.sqrt(var) ** rng.choice([0, 1, 1])
    if kind == 1:
        scale[0] = 0.0
    if kind in {2, 3}:
        scale = np.abs(scale)
    if kind in {3, 4}:
        offset, mean = np.zeros((2, channels))
    return tuple(np.asarray(values, net.dtype) for values in (scale, offset, mean, var))


def batchnorm(net: Network, x: str | None = None) -> str:
    x = x or net.value(2, 3, 4)
    scale, offset, mean, var = batchnorm_parameters(net, net.length(x, 1))
    names = [net.constant(scale), net.constant(offset), net.constant(mean), net.constant(var, shared=False)]
    attributes: dict[str, Any] = {} if net.maybe(2) else {"epsilon": net.pick([1e-3, 2.0**-17])}
    return net.op("BatchNormalization", x, *names, **attributes)


def identity_batchnorm(net: Network) -> str:
    """One that changes nothing: σ² + ε is 1 exactly."""
    x = net.value(2, 3, 4)
    ones = np.ones(net.length(x, 1), net.dtype)
    eps = 2.0**-10
    names = [net.initializer(np.asarray(a, net.dtype)) for a in (ones, 0 * ones, 0 * ones, ones - eps)]
    return net.op("BatchNormalization", x, *names, epsilon=eps)


def _bias_of_gemm(net: Network, rows: int | None, columns: int) -> list[str]:
    shapes: list[tuple[int, ...]] = [(columns,), (columns,), (1, columns), (), (1,)]
    shapes += [] if rows is None else [(rows, 1), (rows, columns)]
    if net.maybe(6):
        return [net.value(2)]
    return [] if net.maybe(3) else [net.normal(*net.pick(shapes))]


def gemm(net: Network, x: str | None = None) -> str:
    x = x or net.value(2)
    turned = net.maybe(4)
    inputs, rows = net.length(x, 0 if turned else 1), net.shape(x)[1 if turned else 0]
    outputs = net.size if net.maybe(2) else inputs
    attributes: dict[str, Any] = {"transA": 1} if turned else {}
    transposed = net.maybe(2)
    weight = net.normal(*((outputs, inputs) if transposed else (inputs, outputs)))
    attributes |= {"transB": 1} if transposed else {}
    attributes |= {"alpha": 0.5} if net.maybe(4) else {}
    attributes |= {"beta": -2.0} if net.maybe(4) else {}
    return net.op("Gemm", x, weight, *_bias_of_gemm(net, rows, outputs), **attributes)


def gemm_reading_weight(net: Network) -> str:
    """The value is the second factor."""
    x = net.value(2)
    return net.op("Gemm", net.normal(net.size, net.length(x, 0)), x, **({"transB": 0} if net.maybe(2) else {}))


def matmul(net: Network, x: str | None = None) -> str:
    x = x or net.value(2, 3, 4)
    inputs = net.length(x, -1)
    leading = net.pick([(), (), (), (1,), (net.size,)])
    if leading == (net.size,) and net.rank(x) > 2 and net.shape(x)[-3] is None:
        raise Impossible  # it would run at batches of 1 and 3 only
    return net.op("MatMul", x, net.normal(*leading, inputs, net.size))


def matmul_left(net: Network) -> str:
    x = net.value(2, 3, 4)
    leading = net.pick([(), (), (1,)])
    return net.op("MatMul", net.normal(*leading, net.size, net.length(x, -2)), x)


def matmul_of_two(net: Network) -> str:
    return net.op("MatMul", net.value(2, 3, 4), net.value(2, 3, 4))


def bias(net: Network, x: str | None = None) -> str:
    x = x or net.value(2, 3, 4)
    added = net.normal(*_broadcast_shape(net, x))
    return net.op("Add", *((x, added) if net.maybe(2) else (added, x)))


def _broadcast_shape(net: Network, x: str) -> tuple[int, ...]:
    """As long as the value along one axis, or along some."""
    shape = net.shape(x)
    axes = {net.choose(len(shape))} if not net.maybe(4) else {k for k in range(len(shape)) if net.maybe(2)}
    laid = [n if k in axes and n is not None else 1 for k, n in enumerate(shape)]
    while laid and laid[0] == 1 and not net.maybe(3):
        laid.pop(0)
    return tuple(laid)


def arithmetic(net: Network) -> str:
    x = net.value(2, 3, 4)
    op = net.pick(["Mul", "Mul", "Add", "Sub", "Div"])
    other = net.normal(*_broadcast_shape(net, x))
    return net.op(op, *((x, other) if net.maybe(2) or op == "Div" else (other, x)))


def decomposed(net: Network, x: str | None = None) -> str:
    """Sub, Mul, Add along the channels, as a frozen BatchNorm may be written."""
    x = x or net.value(2, 3, 4)
    shape = (net.length(x, 1), *(1,) * (net.rank(x) - 2))
    for op in net.pick([("Sub", "Mul", "Add"), ("Mul", "Add"), ("Sub", "Div", "Mul", "Add"), ("Add", "Mul")]):
        x = net.op(op, x, net.normal(*shape))
    return x


def _spatial(net: Network, x: str) -> int:
    if net.rank(x) < 3:
        raise Impossible
    return net.rank(x) - 2


def convolution(net: Network, x: str | None = None) -> str:
    x = x or net.value(3, 4)
    channels, spatial = net.length(x, 1), _spatial(net, x)
    group = net.pick([1, 1, 1, channels, 2 if channels % 2 == 0 else channels])
    outputs = net.pick([channels, channels, net.size, group * 2])
    kernel = [net.pick([1, 2, 3, 3]) for _ in range(spatial)]
    weight = net.normal(outputs, channels // group, *kernel)
    biases = [] if net.maybe(3) else [net.normal(outputs)]
    attributes: dict[str, Any] = {"group": group} if group > 1 else {}
    attributes |= _pads(net, kernel) | _steps(net, spatial)
    return net.op("Conv", x, weight, *biases, **attributes)


def _pads(net: Network, kernel: list[int]) -> dict[str, Any]:
    kind = net.choose(5)
    if kind == 0:
        return {"pads": [(n - 1) // 2 for n in kernel] + [n // 2 for n in kernel]}
    if kind == 1:
        return {"pads": [net.choose(2) for _ in range(2 * len(kernel))]}
    return {"auto_pad": net.pick(["SAME_UPPER", "SAME_LOWER", "VALID"])} if kind == 2 else {}


def _steps(net: Network, spatial: int) -> dict[str, Any]:
    strides = {"strides": [net.pick([1, 2]) for _ in range(spatial)]} if net.maybe(4) else {}
    return strides | ({"dilations": [net.pick([1, 2]) for _ in range(spatial)]} if net.maybe(5) else {})


def transposed_convolution(net: Network) -> str:
    x = net.value(3, 4)
    channels, spatial = net.length(x, 1), _spatial(net, x)
    group = net.pick([1, 1, channels, 2 if channels % 2 == 0 else channels])
    per_group = net.pick([1, 2, net.size // group or 1])
    kernel = [net.pick([1, 2, 3]) for _ in range(spatial)]
    biases = [] if net.maybe(3) else [net.normal(per_group * group)]
    attributes: dict[str, Any] = {"group": group} if group > 1 else {}
    attributes |= {"pads": [net.choose(2) for _ in range(2 * spatial)]} if net.maybe(2) else {}
    attributes |= {"strides": [net.pick([1, 2]) for _ in range(spatial)]} if net.maybe(2) else {}
    return net.op("ConvTranspose", x, net.normal(channels, per_group, *kernel), *biases, **attributes)


def recurrent(net: Network) -> str:
    x = net.value(3)
    op, gates = net.pick([("GRU", 3), ("LSTM", 4), ("RNN", 1)])
    inputs, hidden = net.length(x, 2), net.size
    weights = [net.normal(1, gates * hidden, inputs), net.normal(1, gates * hidden, hidden)]
    biases = [] if net.maybe(3) else [net.normal(1, 2 * gates * hidden)]
    y = net.quiet_ops(op, x, *weights, *biases, hidden_size=hidden)[0]
    return net.op("Squeeze", y, net.ints(1))


def embedding(net: Network) -> str:
    name = f"ids{len(net.inputs)}"
    if net.prefix:
        raise Impossible
    net.inputs.append(name)
    net.arrays[name] = tuple(net.rng.integers(0, 5, size=(batch, net.size)) for batch in BATCHES)
    return net.op("Gather", net.normal(5, net.size), name, **({"axis": 0} if net.maybe(2) else {}))


# --- functions of one element ----------------------------------------------------------------------------------------


def activation(net: Network) -> str:
    x = net.value(2, 3, 4)
    op = net.pick(["Relu", "Relu", "LeakyRelu", "PRelu", "Abs", "Elu", "Sigmoid", "Clip", "Neg", "Sqrt"])
    if op == "PRelu":
        return net.op(op, x, net.normal(net.length(x, 1), *(1,) * (net.rank(x) - 2)))
    if op == "Clip":
        return net.op(op, x, net.constant(-0.5), net.constant(0.5))
    return net.op(op, x, **({"alpha": 0.3} if op == "LeakyRelu" else {}))


def handed_on(net: Network) -> str:
    x = net.value(2, 3, 4)
    op = net.pick(["Identity", "Dropout", "Cast"])
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(net.dtype))
    return net.op(op, x, **({"to": kind} if op == "Cast" else {}))


# --- rearranging -----------------------------------------------------------------------------------------------------


def transpose(net: Network) -> str:
    x = net.value(2, 3, 4)
    rank = net.rank(x)
    axes = list(range(rank))
    perm = [axes.pop(net.choose(len(axes))) for _ in range(rank)]
    return net.op("Transpose", x, **({} if net.maybe(6) else {"perm": perm}))


def reshape(net: Network) -> str:
    """To a target of 0, -1 and the sizes that there are: what does not fit does not run."""
    x, n = net.value(2, 3, 4), net.size
    target = net.pick(
        [(0, n, n), (0, -1), (0, n, -1), (-1, n), (0, n, n, -1), (0, 2, n // 2, -1), (-1, n, n), (0, 0, -1), (n, -1),
         (0, n // 2, 2, -1), (0, 0, n, -1), (0, n * n, -1), (-1, 1, n), (0, 0, 1, -1), (n, -1, n), (0, n, n, n)]
    )  # fmt: skip
    return net.op("Reshape", x, net.ints(*target))


def reshaped_by_shape(net: Network) -> str:
    """The target is computed: the batch of another value, and what is left."""
    x = net.value(2, 3, 4)
    batch = net.quiet_ops("Slice", net.quiet_ops("Shape", x)[0], net.ints(0), net.ints(1))[0]
    return net.op("Reshape", x, net.quiet_ops("Concat", batch, net.ints(-1), net.ints(net.size), axis=0)[0])


def flatten(net: Network) -> str:
    return net.op("Flatten", net.value(2, 3, 4), **({} if net.maybe(2) else {"axis": net.pick([0, 1, 2, -1])}))


def unsqueeze(net: Network) -> str:
    return net.op("Unsqueeze", net.value(2, 3), net.ints(net.pick([0, 1, 2, -1])))


def squeeze(net: Network) -> str:
    x = net.value(3, 4)
    ones = [axis for axis, n in enumerate(net.shape(x)) if n == 1]
    return net.op("Squeeze", x, net.ints(net.pick(ones)))


def shuffle(net: Network) -> str:
    """Channel shuffle: split, swap, merge."""
    x = net.value(4)
    c, h, w = (net.length(x, axis) for axis in (1, 2, 3))
    if c % 2:
        raise Impossible
    split = net.op("Reshape", x, net.ints(0, 2, c // 2, h, w))
    return net.op("Reshape", net.op("Transpose", split, perm=[0, 2, 1, 3, 4]), net.ints(0, c, h, w))


def expand(net: Network) -> str:
    x = net.value(2, 3)
    shape = tuple(n if n is not None else 1 for n in net.shape(x))
    targets = [(net.size, *shape), (1, *shape), shape, (1, *(net.size,) * (len(shape) - 1))]
    return net.op("Expand", x, net.ints(*net.pick(targets)))


def pad(net: Network) -> str:
    x = net.value(3, 4)
    mode = net.pick(["constant", "constant", "reflect", "edge"])
    padded = [0 if axis < net.pick([1, 2]) else net.choose(2) for axis in range(net.rank(x))]
    inputs = [x, net.ints(*padded, *padded[::-1])]
    if mode == "constant" and net.maybe(2):
        inputs.append(net.constant(np.array(net.pick([0.0, 0.5]))))
    return net.op("Pad", *inputs, mode=mode)


def resize(net: Network) -> str:
    x = net.value(4)
    scales = net.initializer(np.array([1, net.pick([1, 1, 1.1]), 2, 2], np.float32))
    attributes = {"mode": net.pick(["nearest", "linear"])}
    attributes |= {} if net.maybe(2) else {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return net.op("Resize", x, "", scales, **attributes)


def depth(net: Network) -> str:
    x = net.value(4)
    if net.maybe(2):
        return net.op("SpaceToDepth", x, blocksize=2)
    return net.op("DepthToSpace", x, blocksize=2, mode=net.pick(["DCR", "CRD"]))


# --- joining ---------------------------------------------------------------------------------------------------------


def concat(net: Network) -> str:
    x = net.value(2, 3, 4)
    parts = [x, *(net.value(net.rank(x)) for _ in range(net.pick([1, 1, 2])))]
    if net.maybe(5):
        parts.append(net.normal(*(n or 1 for n in net.shape(x))))
    return net.op("Concat", *parts, axis=net.pick([1, 1, -1, 2 % net.rank(x)]))


def split(net: Network) -> str:
    x = net.value(2, 3, 4)
    axis = net.pick([1, 1, net.rank(x) - 1])
    first = net.pick([1, 2])
    sizes = net.ints(first, net.length(x, axis) - first)
    return net.ops("Split", x, sizes, num_outputs=2, axis=axis)[0]


def slice_(net: Network) -> str:
    x = net.value(2, 3, 4)
    axis = net.pick([1, 1, -1])
    start, end, step = net.pick([(0, 2, 1), (1, 10, 1), (-1, -100, -1), (0, 10, 2), (-2, -1, 1), (3, 0, -2), (1, 2, 1)])
    return net.op("Slice", x, net.ints(start), net.ints(end), net.ints(axis), net.ints(step))


def gather(net: Network) -> str:
    x = net.value(2, 3, 4)
    axis = net.pick([1, 1, -1])
    length = net.length(x, axis)
    indices = [net.choose(length) for _ in range(net.pick([1, length]))]
    return net.op("Gather", x, net.ints(*indices), axis=axis)


def binary(net: Network) -> str:
    op = net.pick(["Add", "Add", "Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Where"])
    a, b = net.value(2, 3, 4), net.pick(net.live)
    if op == "Div":
        b = net.op("Sigmoid", b)
    if op == "Where":
        return net.op(op, net.quiet_ops("Greater", b, net.constant(0.1))[0], a, b)
    parts = [a, b, *([net.pick(net.live)] if op == "Sum" and net.maybe(2) else [])]
    return net.op(op, *(parts[::-1] if net.maybe(2) and op != "Div" else parts))


def branches(net: Network) -> str:
    """RepVGG's block: convolutions and a BatchNorm of one value, summed."""
    x = net.value(3, 4)
    channels, spatial = net.length(x, 1), _spatial(net, x)
    group = net.pick([1, 1, channels])
    parts = []
    for size in net.pick([(3, 1), (3,), (1,), (3, 3), (1, 3)]):
        weight = net.normal(channels, channels // group, *(size,) * spatial)
        pads = [size // 2] * (2 * spatial)
        y = net.op("Conv", x, weight, pads=pads, group=group)
        parts.append(batchnorm(net, y) if net.maybe(2) else y)
    parts.append(batchnorm(net, x) if not net.maybe(4) else x)
    return _added(net, parts)


def dense_branches(net: Network) -> str:
    x = net.value(2, 3)
    if net.rank(x) == 2 and net.maybe(2):
        return _added(net, [net.op("Gemm", x, net.normal(net.length(x, 1), net.length(x, 1))), batchnorm(net, x)])
    y = net.op("MatMul", x, net.normal(net.length(x, -1), net.length(x, -1)))
    return _added(net, [y, (decomposed if net.maybe(3) else batchnorm)(net, x)])


def _added(net: Network, parts: list[str]) -> str:
    while len(parts) > 1:
        first, second = parts.pop(net.choose(len(parts))), parts.pop(net.choose(len(parts)))
        parts.append(net.op("Add", first, second))
    return parts[0]


# --- pooling ---------------------------------------------------------------------------------------------------------


def pool(net: Network) -> str:
    x = net.value(3, 4)
    op, spatial = net.pick(["AveragePool", "MaxPool"]), _spatial(net, x)
    attributes: dict[str, Any] = {"kernel_shape": [2 + net.choose(2)] * spatial}
    attributes |= {"pads": [1] * (2 * spatial)} if net.maybe(2) else {}
    attributes |= {"strides": [2] * spatial} if net.maybe(2) else {}
    attributes |= {"ceil_mode": 1} if net.maybe(4) else {}
    attributes |= {"count_include_pad": 1} if op == "AveragePool" and net.maybe(2) else {}
    return net.op(op, x, **attributes)


def global_pool(net: Network) -> str:
    x = net.value(3, 4)  # of three axes, the reference's GlobalMaxPool makes two
    return net.op(net.pick(["GlobalAveragePool", "GlobalMaxPool"]) if net.rank(x) == 4 else "GlobalAveragePool", x)


def reduce(net: Network) -> str:
    x = net.value(2, 3, 4)
    op, axes = net.pick(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"]), _axes(net, x)
    keepdims = net.choose(2)
    if op == "ReduceSum" or net.opset >= 18:
        return net.op(op, x, net.ints(*axes), keepdims=keepdims)
    return net.op(op, x, axes=axes, keepdims=keepdims)


def _axes(net: Network, x: str) -> list[int]:
    return net.pick([[-1], [1], [2 % net.rank(x)], [-2, -1], [net.rank(x) - 1]])


# --- bodies ----------------------------------------------------------------------------------------------------------


def conditional(net: Network) -> str:
    """An If on the data, whose bodies read values from outside."""
    if net.prefix:
        raise Impossible
    x = net.value(2, 3, 4)
    total = net.quiet_ops("ReduceSum", x, keepdims=0)[0]
    condition = net.quiet_ops("Less", total, net.constant(net.pick([-6e4, 0.0, 6e4]), shared=False))[0]
    names = [f"branch{len(net.nodes)}_{which}" for which in ("then", "else")]
    bodies = [_body(net, name, x) for name in names]
    node = helper.make_node("If", [condition], [f"if{len(net.nodes)}_out"], name=f"if{len(net.nodes)}")
    node.attribute.extend(
        helper.make_attribute(f"{which}_branch", graph)
        for which, (graph, _) in zip(("then", "else"), bodies, strict=True)
    )
    net.take(node, captured=[name for _, used in bodies for name in used])
    net.live.append(node.output[0])
    return str(node.output[0])


def _body(net: Network, name: str, x: str) -> tuple[onnx.GraphProto, list[str]]:
    """A body of a few nodes, of which the last has the shape of `x`."""
    body = Network(net.choose, net.rng, net.size, net.opset, net.dtype, f"{name}_")
    body.arrays, body.constants, body.live = dict(net.arrays), list(net.constants), [x]
    y = batchnorm(body, x) if net.maybe(2) else body.op("Relu", x)
    for _ in range(3):
        step = net.pick([gemm, matmul, convolution, batchnorm, bias])
        y = _attempt(body, lambda step=step, y=y: step(body, y)) or y  # type: ignore[misc]
    if body.shape(y) != net.shape(x):
        raise Impossible
    result = helper.make_tensor_value_info(y, helper.np_dtype_to_tensor_dtype(np.dtype(net.dtype)), None)
    held = [numpy_helper.from_array(body.arrays[each][0], each) for each in body.initializers]
    made = {output for node in body.nodes for output in node.output} | set(body.initializers)
    used = [each for node in body.nodes for each in node.input if each and each not in made]
    return helper.make_graph(body.nodes, name, [], [result], held), used


def _attempt(net: Network, step: Callable[[], str]) -> str | None:
    """The step, or none of it."""
    before = len(net.nodes), len(net.initializers), len(net.inputs), len(net.constants), len(net.live)
    try:
        return step()
    except Impossible:
        held = (net.nodes, net.initializers, net.inputs, net.constants, net.live)
        for names, length in zip(held, before, strict=True):
            del names[length:]  # type: ignore[attr-defined]
        return None


STEPS: tuple[Callable[[Network], str], ...] = (
    batchnorm, batchnorm, batchnorm, batchnorm, batchnorm, batchnorm, batchnorm, identity_batchnorm, decomposed,
    decomposed, gemm, gemm, gemm, gemm_reading_weight, matmul, matmul, matmul_left, matmul_of_two, bias, bias,
    arithmetic, arithmetic, convolution, convolution, convolution, convolution, transposed_convolution, recurrent,
    embedding, activation, activation, activation, handed_on, handed_on, transpose, transpose, reshape, reshape,
    reshaped_by_shape, flatten, unsqueeze, squeeze, shuffle, expand, pad, resize, depth, concat, concat, split, slice_,
    gather, binary, binary, binary, branches, branches, dense_branches, pool, pool, global_pool, reduce, reduce,
    conditional,
)  # fmt: skip


# --- the network -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A network, and what to feed it at each batch size."""

    model: onnx.ModelProto
    feeds: tuple[dict[str, Array], ...]


def draw_network(choose: Choose, *, max_steps: int = 14, dtype: Any = np.float64) -> Drawn:
    """One network. All that nobody reads is an output, and now and then something in between or a weight is too."""
    seed, size, opset = (
        choose(1 << 16),
        4 - choose(2),
        (15, 17, 20)[choose(3)],
    )  # up to 14, the reference normalises by the batch
    net = Network(choose, np.random.default_rng(seed), size, opset, dtype)
    _add_input(net, 2 + choose(3))
    for _ in range(2 + choose(max_steps - 1)):
        step = STEPS[choose(len(STEPS))]
        _attempt(net, lambda step=step: step(net))  # type: ignore[misc]
        if net.maybe(12):
            _add_input(net, 2 + choose(3))
    model = net.proto(_outputs(net))
    _refuse_faults_of_the_reference(model)
    return Drawn(model, tuple(net.feeds(k) for k in range(len(BATCHES))))


def _refuse_faults_of_the_reference(model: onnx.ModelProto) -> None:
    """Its GlobalMaxPool of three axes gives two, and the like: such a model does not fit the standard."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise Impossible from err


def _add_input(net: Network, rank: int) -> None:
    name = f"x{len(net.inputs)}"
    net.inputs.append(name)
    net.live.append(name)
    shapes = [(batch, *(net.size,) * (rank - 1)) for batch in BATCHES]
    net.arrays[name] = tuple(net.rng.normal(size=shape).astype(net.dtype) for shape in shapes)


def _outputs(net: Network) -> list[str]:
    read = {name for node in net.nodes for name in node.input}
    leaves = [name for name in net.live if name not in read and name not in net.inputs]
    between = [name for name in net.live if name in read and name not in net.inputs]
    weights = [name for name in net.initializers if net.arrays[name][0].dtype == net.dtype]
    found = leaves + [each for names in (between, weights) if names and net.maybe(4) for each in [net.pick(names)]]
    if not found:
        raise Impossible
    return found
