"""Carrying a map through a node: what comes out is what numpy says, in both directions, for any map and operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from model_export.affine import Affine
from model_export.fold.carry import BACKWARD, FORWARD, carry_backward, carry_forward
from model_export.fold.ledger import Refused
from model_export.fold.scope import Scope, scopes_of
from model_export.fold.shapes import prove_shapes
from tests.model_export.fold.graphs import GraphBuilder

EXACT = 1e-11  # relative to the largest value: float64, and a resize that weighs a few neighbours
NUM_EXAMPLES = 25  # for each of sixteen families, in each direction
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One node: the shapes of its data inputs, what else it reads, its attributes and its number of outputs."""

    op: str
    shapes: tuple[Shape, ...]
    others: tuple[Any, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    num_outputs: int = 1

    def model(self) -> ir.Model:
        b = GraphBuilder(np.random.default_rng(0))
        others = [_constant(b, f"other{k}", value) for k, value in enumerate(self.others)]
        names = [f"y{k}" for k in range(len(self.shapes))]
        outputs = [f"out{k}" for k in range(self.num_outputs)]
        b.nodes.append(helper.make_node(self.op, [*names, *others], outputs, name="node", **self.attributes))
        values = [
            helper.make_tensor_value_info(n, TensorProto.DOUBLE, s) for n, s in zip(names, self.shapes, strict=True)
        ]
        return b.model((1,), outputs, inputs=tuple(values))


def _constant(b: GraphBuilder, name: str, value: Any) -> str:
    if value is None:
        return ""
    b.weights[name] = np.asarray(value)
    return name


@st.composite
def _shapes(draw: st.DrawFn, rank: int | None = None) -> Shape:
    return tuple(draw(st.lists(st.integers(1, 4), min_size=rank or 2, max_size=rank or 4)))


@st.composite
def transposes(draw: st.DrawFn) -> Operator:
    shape = draw(_shapes())
    return Operator("Transpose", (shape,), attributes={"perm": draw(st.permutations(range(len(shape))))})


@st.composite
def reshapes(draw: st.DrawFn) -> Operator:
    shape = draw(_shapes())
    cut = draw(st.integers(0, len(shape)))
    target = [int(np.prod(shape[:cut])), *shape[cut:]]
    return Operator("Reshape", (shape,), (np.array(target),))


@st.composite
def flattens(draw: st.DrawFn) -> Operator:
    shape = draw(_shapes())
    return Operator("Flatten", (shape,), attributes={"axis": draw(st.integers(-len(shape), len(shape)))})


@st.composite
def unsqueezes(draw: st.DrawFn) -> Operator:
    shape = draw(_shapes())
    return Operator("Unsqueeze", (shape,), (np.array([draw(st.integers(-1 - len(shape), len(shape)))]),))


@st.composite
def squeezes(draw: st.DrawFn) -> Operator:
    shape, axis = list(draw(_shapes())), draw(st.integers(0, 1))
    shape[axis] = 1
    return Operator("Squeeze", (tuple(shape),), (np.array([axis]),))


@st.composite
def expands(draw: st.DrawFn) -> Operator:
    shape = draw(_shapes())
    target = [draw(st.integers(1, 3)) if n == 1 else n for n in shape]
    return Operator("Expand", (shape,), (np.array([*draw(st.sampled_from([[], [2]])), *target]),))


@st.composite
def pads(draw: st.DrawFn) -> Operator:
    shape = draw(_shapes())
    mode = draw(st.sampled_from(["constant", "edge", "reflect", "wrap"]))
    most = [n - 1 if mode == "reflect" else min(n, 2) for n in shape]
    around = [draw(st.integers(0, n)) for n in (*most, *most)]
    value = draw(st.sampled_from([None, 0.0, 3.0]))
    return Operator("Pad", (shape,), (np.array(around), value), {"mode": mode})


@st.composite
def slices(draw: st.DrawFn) -> Operator:
    shape = draw(_shapes())
    axis, step = draw(st.integers(-len(shape), len(shape) - 1)), draw(st.sampled_from([1, 2, -1, -2]))
    start, end = draw(st.integers(-5, 5)), draw(st.sampled_from([-3, -1, 1, 2, 2**62, -(2**62)]))
    return Operator("Slice", (shape,), tuple(np.array([k]) for k in (start, end, axis, step)))


@st.composite
def concats(draw: st.DrawFn) -> Operator:
    shape = draw(_shapes())
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    parts = [
        tuple(draw(st.integers(1, 3)) if k == axis % len(shape) else n for k, n in enumerate(shape))
        for _ in range(draw(st.integers(1, 3)))
    ]
    return Operator("Concat", tuple(parts), attributes={"axis": axis})


@st.composite
def splits(draw: st.DrawFn) -> Operator:
    shape, parts = list(draw(_shapes())), draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] = sum(parts)
    return Operator("Split", (tuple(shape),), (np.array(parts),), {"axis": axis}, num_outputs=len(parts))


@st.composite
def activations(draw: st.DrawFn) -> Operator:
    shape = draw(_shapes())
    op = draw(st.sampled_from(["Relu", "LeakyRelu", "PRelu", "Abs", "Identity", "Dropout", "Cast"]))
    others = {"PRelu": (np.array(draw(st.sampled_from([-0.5, 0.25]))),)}.get(op, ())
    return Operator(op, (shape,), others, {"to": TensorProto.DOUBLE} if op == "Cast" else {})


@st.composite
def pools(draw: st.DrawFn) -> Operator:
    shape = (*draw(_shapes(2)), *draw(st.lists(st.integers(3, 5), min_size=1, max_size=2)))
    op = draw(st.sampled_from(["AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"]))
    if op.startswith("Global"):
        return Operator(op, (shape,))
    spatial = len(shape) - 2
    attributes: dict[str, Any] = {
        "kernel_shape": [draw(st.integers(2, 3)) for _ in range(spatial)],
        "pads": [draw(st.integers(0, 1)) for _ in range(2 * spatial)],
        "strides": [draw(st.integers(1, 2)) for _ in range(spatial)],
    }
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    return Operator(op, (shape,), attributes=attributes)


@st.composite
def reductions(draw: st.DrawFn) -> Operator:
    shape = draw(_shapes())
    op = draw(st.sampled_from(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"]))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), max_size=2, unique=True))
    attributes = {"keepdims": draw(st.integers(0, 1)), "noop_with_empty_axes": draw(st.integers(0, 1))}
    return Operator(op, (shape,), (np.array(axes, dtype=np.int64),), attributes)


@st.composite
def resizes(draw: st.DrawFn) -> Operator:
    shape = draw(_shapes(3))
    scales = np.array([1, draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2, 3]))], dtype=np.float32)
    return Operator("Resize", (shape,), (None, scales), {"mode": draw(st.sampled_from(["nearest", "linear"]))})


@st.composite
def depths(draw: st.DrawFn) -> Operator:
    n, c, h, w = draw(_shapes(4))
    if draw(st.booleans()):
        return Operator("SpaceToDepth", ((n, c, 2 * h, 2 * w),), attributes={"blocksize": 2})
    mode = draw(st.sampled_from(["DCR", "CRD"]))
    return Operator("DepthToSpace", ((n, 4 * c, h, w),), attributes={"blocksize": 2, "mode": mode})


@st.composite
def arithmetic(draw: st.DrawFn) -> Operator:
    """Of two values, of which one may be shorter, or have fewer axes."""
    shape = draw(_shapes())
    other = tuple(draw(st.sampled_from((1, n))) for n in shape)[draw(st.integers(0, 1)) :]
    shapes = (shape, other) if draw(st.booleans()) else (other, shape)
    return Operator(draw(st.sampled_from(["Add", "Sub", "Sum", "Mul", "Div"])), shapes)


FAMILIES = {
    each.__name__: each
    for each in (
        activations, arithmetic, concats, depths, expands, flattens, pads, pools, reductions, reshapes, resizes,
        slices, splits, squeezes, transposes, unsqueezes,
    )
}  # fmt: skip
by_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
Family = Callable[[], st.SearchStrategy[Operator]]


def _scope_and_node(model: ir.Model) -> tuple[Scope, ir.Node]:
    (scope,) = scopes_of(model, prove_shapes(model))
    return scope, next(iter(scope.graph))


def _run(model: ir.Model, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
    feeds = {f"y{k}": array for k, array in enumerate(inputs)}
    evaluator = ReferenceEvaluator(ir.to_proto(model), new_ops=[MaxPool, GlobalMaxPool])
    return [np.asarray(array) for array in evaluator.run(None, {"x": np.zeros((1, 1)), **feeds})]


class MaxPool(OpRun):
    """onnx.reference fails where the last window lies over padding."""

    op_domain = ""

    def _run(
        self, x: Any, kernel_shape: Any = None, pads: Any = None, strides: Any = None, **_: Any
    ) -> tuple[Any, ...]:
        rank = len(kernel_shape)
        pairs = zip(pads[:rank], pads[rank:], strict=True)
        padded = np.pad(x, [(0, 0), (0, 0), *pairs], constant_values=-np.inf)
        windows = sliding_window_view(padded, kernel_shape, axis=tuple(range(2, x.ndim)))
        steps = (slice(None), slice(None), *(slice(None, None, step) for step in strides))
        return (windows[steps].max(axis=tuple(range(-rank, 0))),)


class GlobalMaxPool(OpRun):
    """onnx.reference does not keep all axes."""

    op_domain = ""

    def _run(self, x: Any, **_: Any) -> tuple[Any, ...]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


def _affine(data: st.DataObject, shape: Shape) -> Affine:
    """Positive or of both signs, with a shift or without, along any axes."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    varying = tuple(data.draw(st.sampled_from((1, n))) for n in shape)
    scale = rng.normal(size=varying)
    shift = rng.normal(size=varying) * data.draw(st.booleans())
    return Affine(np.abs(scale) if data.draw(st.booleans()) else scale, shift)


def _mapped(affine: Affine, values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(affine.scale * values + affine.shift)


def _inputs(operator: Operator) -> list[NDArray[Any]]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=shape) for shape in operator.shapes]


def _assert_equal(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max(initial=0) <= EXACT * np.abs(expected).max(initial=1)


@by_family
@settings(deadline=None, max_examples=NUM_EXAMPLES)
@given(data=st.data())
def test_a_map_before_a_node_is_the_same_as_the_carried_one_behind_it(family: Family, data: st.DataObject) -> None:
    operator = data.draw(family())
    model = operator.model()
    scope, node = _scope_and_node(model)
    index = data.draw(st.integers(0, len(operator.shapes) - 1))
    affine = _affine(data, operator.shapes[index])
    try:
        carried = carry_forward(node, index, affine, scope)
    except Refused:
        event(f"{operator.op} refused")
        return
    event(f"{operator.op} carried")
    raw = _inputs(operator)
    normalised = [_mapped(affine, array) if k == index else array for k, array in enumerate(raw)]
    for k, (before, behind) in enumerate(zip(_run(model, normalised), _run(model, raw), strict=True)):
        _assert_equal(_mapped(carried[k], behind), before)


@by_family
@settings(deadline=None, max_examples=NUM_EXAMPLES)
@given(data=st.data())
def test_a_map_behind_a_node_is_the_same_as_each_alternative_before_it(family: Family, data: st.DataObject) -> None:
    operator = data.draw(family())
    model = operator.model()
    scope, node = _scope_and_node(model)
    raw = _inputs(operator)
    outputs = _run(model, raw)
    index = data.draw(st.integers(0, len(outputs) - 1))
    affine = _affine(data, outputs[index].shape)
    try:
        alternatives = carry_backward(node, index, affine, scope)
    except Refused:
        event(f"{operator.op} refused")
        return
    event(f"{operator.op} carried")
    for wanted in alternatives:
        normalised = [_mapped(wanted[k], array) if k in wanted else array for k, array in enumerate(raw)]
        _assert_equal(_run(model, normalised)[index], _mapped(affine, outputs[index]))


ONE_WAY = {"forward": {"Add", "Sub", "Sum", "DepthToSpace"}, "backward": {"SpaceToDepth"}}


def _plain(rank: int) -> Affine:
    return Affine(np.full((1,) * rank, 2.0), np.zeros((1,) * rank))


@by_family
@settings(deadline=None, max_examples=NUM_EXAMPLES)
@given(data=st.data())
def test_a_positive_factor_that_is_the_same_everywhere_is_let_through_in_both_directions(
    family: Family, data: st.DataObject
) -> None:
    """So that the tests above do not pass for everything being refused."""
    operator = data.draw(family())
    model = operator.model()
    scope, node = _scope_and_node(model)
    is_constant_pad = operator.op == "Pad" and operator.attributes["mode"] == "constant" and operator.others[1]
    if is_constant_pad or operator.op == "Div":
        return
    if operator.op not in ONE_WAY["forward"]:
        assert carry_forward(node, 0, _plain(len(operator.shapes[0])), scope)
    if operator.op not in ONE_WAY["backward"]:
        assert carry_backward(node, 0, _plain(len(_run(model, _inputs(operator))[0].shape)), scope)


def test_every_operator_that_has_a_rule_is_tried_here_or_named() -> None:
    tried = {
        "Abs", "Add", "AveragePool", "Cast", "Concat", "DepthToSpace", "Div", "Dropout", "Expand", "Flatten",
        "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MaxPool", "Mul", "PRelu", "Pad", "ReduceMax",
        "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split",
        "Squeeze", "Sub", "Sum", "Transpose", "Unsqueeze",
    }  # fmt: skip
    assert FORWARD.keys() | BACKWARD.keys() == tried | {"Upsample"}  # Resize as it was up to opset 9
