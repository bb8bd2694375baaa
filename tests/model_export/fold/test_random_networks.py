"""Random networks against every promise of a fold, in float64; in float32 and float16, that ONNX Runtime runs them.

Below are the small networks in which such a search once found a promise broken, each as a test of its own.
"""

from __future__ import annotations

import contextlib
import random
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from model_export.fold import FoldedModel, fold
from model_export.fold.selection import Selection
from service.runtime import ort
from tests.model_export.fold import random_networks
from tests.model_export.fold.claims import check_all, difference
from tests.model_export.fold.graphs import GraphBuilder, fold_and_compare, num_batchnorms, run
from tests.model_export.fold.random_networks import Drawn, Impossible

BOUNDED = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
GROSS = {np.float32: 1e-3, np.float16: 3e-2}  # no more than that the model runs, and is not beside itself


@st.composite
def networks(draw: st.DrawFn, dtype: Any = np.float64) -> Drawn:
    """A random network; each choice is drawn by itself, so that a failure shrinks."""
    try:
        return random_networks.draw_network(lambda bound: draw(st.integers(0, bound - 1)), dtype=dtype)
    except Impossible:
        assume(False)
        raise


@settings(BOUNDED, max_examples=200)
@given(networks())
def test_a_fold_keeps_its_promises_whatever_the_network(drawn: Drawn) -> None:
    check_all(drawn)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_a_fold_keeps_its_promises_in_networks_that_are_drawn_evenly(first: int) -> None:
    """Hypothesis likes small numbers, and so the first of all choices; here each is as likely."""
    for seed in range(first, first + 50):
        rng = random.Random(seed)  # noqa: S311
        with contextlib.suppress(Impossible):
            drawn = random_networks.draw_network(rng.randrange, max_steps=16)
            check_all(drawn)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_onnx_runtime_runs_what_was_folded(dtype: Any) -> None:
    @settings(BOUNDED, max_examples=50)
    @given(networks(dtype))
    def check(drawn: Drawn) -> None:
        check_runs(drawn, GROSS[dtype])

    check()


def check_runs(drawn: Drawn, tolerance: float) -> None:
    """Where ONNX Runtime runs the network, it runs the folded one, to answers that are alike."""
    folded = ir.to_proto(fold(ir.from_proto(drawn.model)).model)
    for feeds in drawn.feeds:
        expected = _answers(drawn.model, feeds)
        if expected is None or not all(np.isfinite(array).all() for array in expected):
            return  # not every kernel exists in every dtype
        found = _answers(folded, feeds)
        assert found is not None, "ONNX Runtime runs the network, but not the folded one"
        for before, after in zip(expected, found, strict=True):
            assert difference(before.astype(np.float64), after.astype(np.float64)) <= tolerance


def _answers(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any] | None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(array) for array in session.run(None, feeds)]
    except Exception:  # noqa: BLE001 - ONNX Runtime's errors have no common base
        return None


# --- what was found --------------------------------------------------------------------------------------------------

EPS = 2.0**-10


def _identity(b: GraphBuilder, x: str, channels: int, name: str) -> str:
    """A BatchNorm that changes nothing: σ² + ε is 1 exactly."""
    ones = np.ones(channels)
    values = {"scale": ones, "offset": 0 * ones, "mean": 0 * ones, "var": ones - EPS}
    names = [b.constant(f"{name}.{what}", array) for what, array in values.items()]
    return b.node("BatchNormalization", [x, *names], name, epsilon=EPS)


def _builder() -> GraphBuilder:
    return GraphBuilder(np.random.default_rng(0))


def _outputs(folded: FoldedModel) -> list[str]:
    return [str(value.name) for value in folded.model.graph.outputs]


def test_a_batchnorm_that_changes_nothing_does_not_rename_the_models_input() -> None:
    b = _builder()
    folded = fold_and_compare(b.model((4,), [_identity(b, "x", 4, "bn")]), (4,))
    assert ([value.name for value in folded.model.graph.inputs], _outputs(folded)) == (["x"], ["bn_out"])


def test_a_batchnorm_that_changes_nothing_leaves_two_outputs_two() -> None:
    b = _builder()
    sine = b.node("Sin", ["x"], "sin")
    folded = fold_and_compare(b.model((4,), [sine, _identity(b, sine, 4, "bn")]), (4,))
    assert _outputs(folded) == ["sin_out", "bn_out"]


def test_a_weight_that_is_computed_from_what_was_folded_is_computed_anew() -> None:
    """The BatchNorm of a constant went into that constant, and the next fold still saw the old one."""
    b = _builder()
    product = b.node("MatMul", [b.weight("left", 4, 4), b.weight("right", 4, 4)], "product")
    weight = b.batchnorm(product, 4, "of_weight")
    y = b.batchnorm(b.node("MatMul", ["x", weight], "dense"), 4, "bn")
    folded = fold_and_compare(b.model((4,), [y]), (4,))
    assert num_batchnorms(folded.model) == 0


def test_a_batchnorm_of_a_constant_is_accounted_for_before_its_reader_takes_another() -> None:
    b = _builder()
    normalised = b.batchnorm("x", 4, "bn")
    weight = b.batchnorm(b.weight("weight", 4, 4), 4, "of_weight")
    folded = fold_and_compare(b.model((4,), [b.node("MatMul", [normalised, weight], "dense")]), (4,))
    assert [entry.outcome for entry in folded.report.entries] == ["folded", "folded"]


def test_a_batchnorm_of_a_constant_that_is_to_be_kept_stays_though_nobody_reads_it() -> None:
    b = _builder()
    weight = b.batchnorm(b.weight("weight", 4, 4), 4, "of_weight")
    y = b.batchnorm(b.node("MatMul", ["x", weight], "dense"), 4, "bn")
    folded = fold(b.model((4,), [y]), Selection(keep=("of_weight",)))
    assert num_batchnorms(folded.model) == 1


def _assert_shared_names_hold_the_same(model: ir.Model, x: np.ndarray[Any, Any]) -> None:
    """Every value that has the same name before and after, asked for as an output."""
    folded = fold(model).model
    shared = [_names(graph) for graph in (model.graph, folded.graph)]
    for name in shared[0] & shared[1]:
        before, after = (run(_with_output(each, name), x)[0] for each in (model, folded))
        assert difference(before, after) <= 1e-9, name


def _names(graph: ir.Graph) -> set[str]:
    return {str(value.name) for node in graph for value in node.outputs}


def _with_output(model: ir.Model, name: str) -> ir.Model:
    proto = ir.to_proto(model)
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None))
    return ir.from_proto(proto)


def test_what_takes_the_place_of_arithmetic_takes_no_name_that_meant_something_else() -> None:
    b = _builder()
    hidden = b.node("Abs", [b.node("Mul", ["x", b.weight("factor", 4)], "mul")], "abs")
    hidden = b.node("Sub", [hidden, b.weight("less", 4)], "sub")
    hidden = b.node("Div", [hidden, b.weight("divisor", 4)], "div")
    hidden = b.node("Add", [hidden, b.weight("more", 4)], "add")
    model = b.model((4,), [b.batchnorm(hidden, 4, "bn")])
    _assert_shared_names_hold_the_same(model, np.random.default_rng(1).normal(size=(3, 4)))


def test_what_stands_between_two_batchnorms_that_go_forward_takes_another_name() -> None:
    b = _builder()
    between = b.node("Transpose", [b.batchnorm("x", 4, "bn0")], "same", perm=[0, 1])
    model = b.model((4,), [b.gemm(b.batchnorm(between, 4, "bn1"), 4, 4, "dense")])
    _assert_shared_names_hold_the_same(model, np.random.default_rng(1).normal(size=(3, 4)))


def _fold_twice(model: ir.Model) -> list[bytes]:
    once = fold(model).model
    return [ir.to_proto(each).SerializeToString(deterministic=True) for each in (once, fold(once).model)]


def test_a_layer_comes_before_arithmetic_whose_constants_could_take_it_too() -> None:
    b = _builder()
    scaled = b.node("Mul", ["x", b.weight("factor", 3, 1)], "mul")
    hidden = b.batchnorm(b.node("Add", [scaled, b.weight("more", 3, 1)], "add"), 3, "bn")
    model = b.model((3, 3), [b.node("Conv", [hidden, b.weight("weight", 2, 3, 1)], "conv")])
    assert fold(model).report.entries[0].into == ("conv",)
    once, twice = _fold_twice(model)
    assert once == twice


def test_arithmetic_that_a_batchnorm_hid_is_folded_when_that_is_gone() -> None:
    b = _builder()
    hidden = b.node("Add", [_identity(b, "x", 4, "bn"), b.weight("more", 4)], "add")
    hidden = b.node("Mul", [hidden, b.weight("factor", 4)], "mul")
    once, twice = _fold_twice(b.model((4,), [b.node("MatMul", [hidden, b.weight("weight", 4, 4)], "dense")]))
    assert once == twice


def test_a_batchnorm_behind_a_reshape_to_a_computed_target_can_be_checked() -> None:
    """Only the layers that read it tell how long its channels are."""
    b = _builder()
    first = b.constant("first", np.array([0])), b.constant("second", np.array([1]))
    batch = b.node("Slice", [b.node("Shape", ["x"], "shape"), *first], "batch")
    target = b.node("Concat", [batch, b.constant("rest", np.array([-1, 3]))], "target", axis=0)
    hidden = b.batchnorm(b.node("Reshape", ["x", target], "reshape"), 9, "bn")
    y = b.node("Conv", [hidden, b.weight("weight", 2, 9, 2)], "conv")
    assert num_batchnorms(fold_and_compare(b.model((3, 3, 3), [y]), (3, 3, 3)).model) == 0


def test_a_reshape_behind_a_padded_transposed_convolution_can_be_checked() -> None:
    b = _builder()
    weight = b.weight("weight", 4, 4, 2, 3)
    hidden = b.node("ConvTranspose", ["x", weight], "up", pads=[0, 1, 0, 1], strides=[2, 1], output_padding=[1, 0])
    hidden = b.node("Reshape", [hidden, b.constant("split", np.array([0, 2, 2, 9, 4]))], "split_channels")
    hidden = b.node("Transpose", [hidden], "swap", perm=[0, 2, 1, 3, 4])
    hidden = b.node("Reshape", [hidden, b.constant("merge", np.array([0, 4, 9, 4]))], "merge_channels")
    folded = fold_and_compare(b.model((4, 4, 4), [b.batchnorm(hidden, 4, "bn")]), (4, 4, 4))
    assert num_batchnorms(folded.model) == 0


def test_a_resize_that_interpolates_among_as_many_channels_as_before_is_refused_by_its_own_rule() -> None:
    b = _builder()
    b.weights["scales"] = np.array([1, 1.1, 2, 2], np.float32)
    hidden = b.node("Conv", ["x", b.weight("weight", 3, 3, 1, 1)], "conv")
    hidden = b.node("Resize", [hidden, "", "scales"], "resize", mode="linear")
    folded = fold_and_compare(b.model((3, 3, 3), [b.batchnorm(hidden, 3, "bn")]), (3, 3, 3))
    assert "is not proved to leave the channels" in folded.report.entries[0].reason


def test_a_fold_beside_layers_of_which_the_batch_became_a_place_can_be_checked() -> None:
    b = _builder()
    x = b.node("Transpose", ["x"], "transpose", perm=[3, 1, 0, 2])
    layers = [b.node("Conv", [x, b.weight(f"weight{k}", 3, 3, k, k)], f"conv{k}", pads=[k // 2] * 4) for k in (3, 1)]
    y = b.node("Add", [b.batchnorm(x, 3, "bn"), b.node("Add", layers, "inner")], "outer")
    assert num_batchnorms(fold_and_compare(b.model((3, 3, 3), [y]), (3, 3, 3)).model) == 0


def test_a_transpose_of_fewer_axes_than_there_are_is_refused_without_a_traceback() -> None:
    b = _builder()
    hidden = b.node("Transpose", [b.node("GlobalMaxPool", [b.batchnorm("x", 3, "bn")], "pool")], "turn", perm=[1, 0])
    model = b.model((3, 3), [b.node("Add", ["x", "x"], "other")])
    assert hidden == "turn_out"
    assert fold(model).report.entries[0].outcome == "kept"
