"""Checks every single fold before it is carried out: what it touches, on random data, in float64, before and after.

An exact fold differs by rounding in float64, some 1e-14 of the largest value; a wrong one, by an axis, a sign or a
padding, by percents. One that differs by more than PROOF is refused, with the measured error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model_export.errors import first_line
from model_export.fold.edit import Edit
from model_export.fold.evaluate import Array, Evaluation, Values
from model_export.fold.ledger import Refused
from model_export.fold.nodes import FLOATS, input_of, int_of, ints_of, is_op, name_of, sees_only_the_shape
from model_export.fold.scope import Scope
from model_export.fold.shapes import Length, Lengths
from model_export.ir import ir

PROOF = 1e-9  # relative to the largest value; see the head of this file. Six digits may cancel in a far mean.
BATCH = 2
UNKNOWN = 5  # places along an axis of unknown length
SEED = 20150211  # arXiv 1502.03167 came out that day
SIZE_FREE = frozenset(
    {
        "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Concat", "Conv", "ConvTranspose", "Div", "Dropout",
        "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MaxPool", "Mul", "Neg", "PRelu", "Relu", "Sub",
    }
)  # fmt: skip


def prove(edit: Edit, scope: Scope) -> float:
    """The largest difference that the edit makes to any value that others see, relative to its largest element.

    Raises:
        Refused: it differs by more than PROOF, can not be computed, or overflows the dtype of a weight.
    """
    try:
        nodes = sorted(edit.nodes, key=lambda node: scope.place[node])
        edit = edit.computed()
        error = _measured(edit, scope, nodes)
    except Refused:
        raise
    except Exception as err:  # whatever keeps a fold from being checked keeps it from being made
        raise Refused(f"the fold can not be checked on random data: {first_line(err)}") from err
    if not error <= PROOF:
        raise Refused(f"the check of this fold in float64 measured a difference of {error:.1e}: it is not exact")
    _refuse_overflow(edit)
    _refuse_two_names(edit, scope)
    return error


def _measured(edit: Edit, scope: Scope, nodes: list[ir.Node]) -> float:
    """At small sizes where sizes do not matter, for that is cheap; else at those that are proved.

    At last with a batch as long as any free axis: it may have been moved to one of those.
    """
    if all(is_op(node, *SIZE_FREE) for node in nodes):
        with contextlib.suppress(ValueError, IndexError):  # as where two branches shrink to different sizes
            return _largest_difference(edit, scope, nodes, Sizes(max(_extent(node, scope) for node in nodes) + 2))
    with contextlib.suppress(ValueError, IndexError):
        return _largest_difference(edit, scope, nodes, Sizes())
    return _largest_difference(edit, scope, nodes, Sizes(batch=UNKNOWN))


def _largest_difference(edit: Edit, scope: Scope, nodes: list[ir.Node], sizes: Sizes) -> float:
    inputs = _random_inputs(scope, nodes, sizes)
    before = Evaluation(scope, inputs, Edit()).run(nodes)
    after = Evaluation(scope, inputs, edit).run(nodes)
    seen = _seen_from_outside(nodes)
    if not seen:
        raise ValueError("nobody reads the result")
    return max(_difference(before[value], after[value]) for value in seen)


def _seen_from_outside(nodes: list[ir.Node]) -> list[ir.Value]:
    inside = set(nodes)
    outputs = [value for node in nodes for value in node.outputs]
    return [value for value in outputs if value.is_graph_output() or _is_read_outside(value, inside)]


def _is_read_outside(value: ir.Value, inside: set[ir.Node]) -> bool:
    return any(node not in inside and not sees_only_the_shape(node, index) for node, index in value.uses())


def _difference(before: Array, after: Array) -> float:
    if before.shape != after.shape:
        return np.inf
    largest = float(np.abs(before).max(initial=0.0))
    return float(np.abs(before - after).max(initial=0.0)) / (largest or 1.0)


def _refuse_overflow(edit: Edit) -> None:
    for (node, _), exact in edit.constants.items():
        if not np.isfinite(exact.rounded().astype(np.float64)).all():
            raise Refused(f"the folded weights of {name_of(node)} would overflow {exact.dtype.name.lower()}")
    for value, exact in edit.shifts.items():
        if not np.isfinite(exact.rounded().astype(np.float64)).all():
            raise Refused(f"the shift behind {value.name} would overflow {exact.dtype.name.lower()}")


def _refuse_two_names(edit: Edit, scope: Scope) -> None:
    """What takes the place of the model's output takes its name; not what must keep a name of its own."""
    for node in edit.bypassed:
        output = node.outputs[0]
        value = _stand_in(output, edit)
        maker = value.producer()
        if output.is_graph_output() and (maker is None or maker.graph is not scope.graph or value.is_graph_output()):
            raise Refused(f"{value.name} keeps its name, and could not be {output.name} too")


def _stand_in(value: ir.Value, edit: Edit) -> ir.Value:
    """What is read instead of a value when the edit is done."""
    node = value.producer()
    source = None if node is None or node not in edit.bypassed else node.inputs[edit.bypassed[node]]
    return value if source is None else _stand_in(source, edit)


# --- random inputs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """How long values are drawn: the batch, and where `smallest` is given, no axis of places longer than that."""

    smallest: int | None = None
    batch: int = BATCH


def _random_inputs(scope: Scope, nodes: list[ir.Node], sizes: Sizes) -> Values:
    rng = np.random.default_rng(SEED)
    made = {value for node in nodes for value in node.outputs}
    inputs: Values = {}
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value is None or value in made or value in inputs or scope.constants.is_constant(value):
                continue
            array = _random(node, index, value, scope, rng, sizes)
            if array is not None:
                inputs[value] = array
    return inputs


def _random(  # noqa: PLR0913, PLR0917 - one value, its reader, and how it is drawn
    node: ir.Node, index: int, value: ir.Value, scope: Scope, rng: np.random.Generator, sizes: Sizes
) -> Array | None:
    """Standard normal values; whole numbers where they look up rows; nothing where a shape is computed."""
    if is_op(node, "Gather") and index == 1:
        rows = scope.constants.read(node.inputs[0], "the table").shape[0]
        return rng.integers(0, rows, size=_sizes(value, node, scope, Sizes(batch=sizes.batch)))
    if index > 0 and value.dtype is not None and value.dtype not in FLOATS:
        return None
    if is_op(node, "GRU", "LSTM", "RNN") and index > 0:
        return None
    return rng.normal(size=_sizes(value, node, scope, sizes))


def _sizes(value: ir.Value, node: ir.Node, scope: Scope, sizes: Sizes) -> tuple[int, ...]:
    proved = scope.shapes.of(value)
    asked = _asked_by(node, value, scope)
    lengths = proved if proved is not None else asked
    if lengths is None:
        raise ValueError(f"the shape of {value.name} is not known")
    if asked is not None and len(asked) == len(lengths):
        pairs = zip(lengths, asked, strict=True)
        lengths = tuple(length if isinstance(length, int) else wanted or length for length, wanted in pairs)
    batches = _names_of_batches(scope)
    return tuple(
        sizes.batch if length in batches else _size(axis, length, len(lengths), sizes)
        for axis, length in enumerate(lengths)
    )


def _names_of_batches(scope: Scope) -> set[str]:
    """The names of first axes: each stands for the same size wherever it stands, as behind the times of a sequence."""
    firsts = {lengths[0] for value in scope.graph.inputs if (lengths := scope.shapes.of(value))}
    return {length for length in firsts if isinstance(length, str)}


def _size(axis: int, length: Length, rank: int, sizes: Sizes) -> int:
    if not isinstance(length, int):
        return sizes.batch if axis == 0 else max(sizes.smallest or 0, UNKNOWN)
    if sizes.smallest is not None and rank > 2 and axis >= 2:
        return min(length, sizes.smallest)
    return length


def _asked_by(node: ir.Node, value: ir.Value, scope: Scope) -> Lengths | None:
    """What the layer that reads a value of unknown shape wants of it."""
    side = 0 if is_op(node, "MatMul") and node.inputs[1] is value else 1
    weight, rank = input_of(node, side), scope.shapes.rank(value) or 0
    if not is_op(node, *ASKED) or weight is None or not scope.constants.is_constant(weight):
        return None
    shape = scope.constants.read(weight, "the weight").shape
    return ASKED[node.op_type](node, shape, rank) if side == 1 else (*(None,) * (rank - 2), shape[-1], None)


def _asked_by_gemm(node: ir.Node, weight: tuple[int, ...], rank: int) -> Lengths:  # noqa: ARG001
    inputs = weight[1 if int_of(node, "transB", 0) else 0]
    return (inputs, None) if int_of(node, "transA", 0) else (None, inputs)


ASKED: dict[str, Callable[[ir.Node, tuple[int, ...], int], Lengths]] = {
    "BatchNormalization": lambda node, scale, rank: (None, scale[0], *(None,) * (rank - 2)),  # noqa: ARG005
    "Conv": lambda node, weight, rank: (  # noqa: ARG005
        None,
        weight[1] * int_of(node, "group", 1),
        *(None,) * (len(weight) - 2),
    ),
    "ConvTranspose": lambda node, weight, rank: (None, weight[0], *(None,) * (len(weight) - 2)),  # noqa: ARG005
    "Gemm": _asked_by_gemm,
    "MatMul": lambda node, weight, rank: (*(None,) * (rank - 1), weight[-2]),  # noqa: ARG005
}


def _extent(node: ir.Node, scope: Scope) -> int:
    """How far the kernel of a layer or pool reaches."""
    kernel = ints_of(node, "kernel_shape")
    weight = input_of(node, 1)
    if kernel is None and is_op(node, "Conv", "ConvTranspose") and weight is not None:
        kernel = scope.constants.read(weight, "the weight").shape[2:]
    if not kernel:
        return 1
    dilations = ints_of(node, "dilations") or (1,) * len(kernel)
    return max(step * (size - 1) + 1 for size, step in zip(kernel, dilations, strict=True))
