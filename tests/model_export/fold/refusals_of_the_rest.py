"""What would be wrong without each refusal of `batchnorm`, `pointwise`, `scope`, `merge` and `parallel`."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from model_export.fold import batchnorm, merge, parallel, pointwise
from model_export.fold.scope import Scope
from tests.model_export.fold.graphs import GraphBuilder
from tests.model_export.fold.refusal_cases import stops

# --- a BatchNormalization --------------------------------------------------------------------------------------------


@stops(batchnorm.read_batchnorm, "not all finite", "previous", "wrong")
def an_infinite_scale(b: GraphBuilder) -> ir.Model:
    normal = b.batchnorm(b.gemm("x", 4, 3, "dense"), 3, "bn")
    b.constant("bn.scale", [np.inf, 1.0, 1.0])
    return b.model((4,), [normal])


@stops(batchnorm.read_batchnorm, "its variance is negative", "previous", "wrong")
def a_negative_variance(b: GraphBuilder) -> ir.Model:
    normal = b.batchnorm(b.gemm("x", 4, 3, "dense"), 3, "bn")
    b.constant("bn.var", [-1.0, 1.0, 1.0])
    return b.model((4,), [normal])


@stops(batchnorm._refuse_training_mode, "it normalises by the batch", "previous", "unseen")
def statistics_of_the_batch(b: GraphBuilder) -> ir.Model:
    return b.model((4,), [b.batchnorm(b.gemm("x", 4, 3, "dense"), 3, "bn", training_mode=1)])


def _trained_in_opset_15(model: ir.Model) -> ir.Model:
    """BatchNormalization trains if it says so; it did if it did not say otherwise."""
    for node in model.graph:
        if node.op_type == "BatchNormalization":
            node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
    model.opset_imports[""] = 15
    return model


@stops(batchnorm._refuse_training_mode, "without is_test", "previous", "unseen", meaning=_trained_in_opset_15)
def statistics_of_the_batch_in_opset_6(b: GraphBuilder) -> ir.Model:
    conv = b.node("Conv", ["x", b.weight("w", 3, 2, 1)], "conv")
    return b.model((2, 5), [b.batchnorm(conv, 3, "bn")], opset=6)


@stops(batchnorm._refuse_training_mode, "spatial=0", "previous", "twice")
def statistics_for_each_element(b: GraphBuilder) -> ir.Model:
    """They have more axes than channels, which is refused as well."""
    conv = b.node("Conv", ["x", b.weight("w", 3, 2, 1)], "conv")
    normal = b.batchnorm(conv, 3, "bn", spatial=0)
    for what in ("scale", "offset", "mean"):
        b.weight(f"bn.{what}", 3, 5)
    b.constant("bn.var", np.ones((3, 5)))
    return b.model((2, 5), [normal], opset=7)


# --- arithmetic ------------------------------------------------------------------------------------------------------


@stops(pointwise.read_pointwise, "is no affine map", "previous", "crash")
def a_sigmoid_in_the_way(b: GraphBuilder) -> ir.Model:
    return b.model((4,), [b.batchnorm(b.node("Sigmoid", ["x"], "sigmoid"), 4, "bn")])


@stops(pointwise.batchnorm_affine, "and no channels", "next", "crash")
def a_batchnorm_of_a_vector(b: GraphBuilder) -> ir.Model:
    return b.model((), [b.node("Relu", [b.batchnorm("x", 4, "bn")], "relu")], batch=4)


def _broadcast_by_the_rules_of_opset_7(model: ir.Model) -> ir.Model:
    """Write `axis` into the shape of the constant; the oracle knows no RNN of opset 6."""
    for node in model.graph:
        if "axis" in node.attributes:
            axis = node.attributes["axis"].as_int()
            shape = tuple(4 if k == axis else 1 for k in range(3))
            old = node.inputs[1]
            assert old is not None
            assert old.const_value is not None
            old.const_value = ir.tensor(old.const_value.numpy().reshape(shape), name=old.name)
            old.shape = ir.Shape(shape)
            node.attributes.clear()
    model.opset_imports[""] = 14
    return model


@stops(
    pointwise._read_arithmetic,
    "broadcasts by other rules",
    "next",
    "unseen",
    subject="scale",
    meaning=_broadcast_by_the_rules_of_opset_7,
)
def arithmetic_of_opset_6_along_another_axis_than_the_last(b: GraphBuilder) -> ir.Model:
    """A factor and a term for each of four times; by later rules it would be for each of four features."""
    scaled = b.node("Mul", ["x", b.weight("s", 4)], "scale", broadcast=1, axis=0)
    shifted = b.node("Add", [scaled, b.weight("t", 4)], "shift", broadcast=1, axis=0)
    weights = [b.weight("w", 1, 5, 4), b.weight("r", 1, 5, 5)]
    return b.model((2, 4), [b.node("RNN", [shifted, *weights], "rnn", hidden_size=5)], batch=4, opset=6)


@stops(pointwise._variable_input, "does not take one constant", "previous", "crash")
def a_product_of_two_values(b: GraphBuilder) -> ir.Model:
    product = b.node("Mul", [b.gemm("x", 4, 3, "left"), b.gemm("x", 4, 3, "right")], "mul")
    return b.model((4,), [b.batchnorm(product, 3, "bn")])


@stops(pointwise._laid_out, "has more axes than", "previous", "crash")
def a_constant_that_gives_the_value_more_axes(b: GraphBuilder) -> ir.Model:
    total = b.node("Add", [b.gemm("x", 4, 3, "dense"), b.weight("c", 1, 1, 3)], "add")
    return b.model((4,), [b.batchnorm(total, 5, "bn")], batch=5)


@stops(pointwise._laid_out, "longer", "next", "uncheckable")
def a_constant_that_makes_many_channels_of_one(b: GraphBuilder) -> ir.Model:
    longer = b.node("Mul", [b.batchnorm("x", 1, "bn"), b.weight("c", 1, 4)], "mul")
    return b.model((1,), [b.gemm(longer, 4, 3, "dense")])


@stops(pointwise._laid_out, "is not all finite", "previous", "wrong")
def a_factor_that_is_infinite(b: GraphBuilder) -> ir.Model:
    product = b.node("Mul", [b.gemm("x", 4, 3, "dense"), b.constant("c", [np.inf, 1.0, 1.0])], "mul")
    return b.model((4,), [b.batchnorm(product, 3, "bn")])


@stops(pointwise._divided, "divides by zero", "previous", "wrong")
def a_divisor_that_is_zero(b: GraphBuilder) -> ir.Model:
    quotient = b.node("Div", [b.gemm("x", 4, 3, "dense"), b.constant("c", [0.0, 1.0, 1.0])], "div")
    return b.model((4,), [b.batchnorm(quotient, 3, "bn")])


# --- who reads -------------------------------------------------------------------------------------------------------


@stops(Scope.readers, "is an output of", "previous", "wrong")
def a_layer_whose_result_is_the_models(b: GraphBuilder) -> ir.Model:
    dense = b.gemm("x", 4, 3, "dense")
    return b.model((4,), [dense, b.batchnorm(dense, 3, "bn")])


@stops(Scope.readers, "in the body of", "next", "uncheckable")
def a_layer_in_a_body_that_reads_from_outside(b: GraphBuilder) -> ir.Model:
    inside = helper.make_node("Gemm", [b.batchnorm("x", 4, "bn"), "w"], ["z"], name="inside")
    result = helper.make_tensor_value_info("z", TensorProto.DOUBLE, None)
    weights = [numpy_helper.from_array(b.rng.normal(size=(4, 2)), "w")]
    body = helper.make_graph([inside], "body", [], [result], weights)
    b.constant("yes", np.array(1, dtype=np.int64))
    condition = b.node("Cast", ["yes"], "bool", to=TensorProto.BOOL)
    return b.model((4,), [b.node("If", [condition], "branch", then_branch=body, else_branch=body)])


@stops(Scope.refuse_other_readers, "readers", "previous", "wrong")
def a_layer_that_two_read(b: GraphBuilder) -> ir.Model:
    dense = b.gemm("x", 4, 3, "dense")
    return b.model((4,), [b.node("Sigmoid", [dense], "sigmoid"), b.batchnorm(dense, 3, "bn")])


@stops(Scope.rank, "is not known", "previous", "crash")
def a_value_of_unknown_shape(b: GraphBuilder) -> ir.Model:
    wanted = helper.make_tensor_value_info("wanted", TensorProto.INT64, ["k"])
    return b.model((4,), [b.batchnorm(b.node("Reshape", ["x", "wanted"], "unknown"), 4, "bn")], inputs=(wanted,))


# --- merging with a neighbour ----------------------------------------------------------------------------------------


@stops(merge.merge_with_neighbour, "join(reasons)", "merge", "crash")
def a_batchnorm_without_a_neighbour(b: GraphBuilder) -> ir.Model:
    return b.model((4,), [b.node("Sigmoid", [b.batchnorm("x", 4, "bn")], "sigmoid")])


@stops(merge._with_previous, "nothing comes before", "merge", "crash")
def a_batchnorm_of_the_input(b: GraphBuilder) -> ir.Model:
    return b.model((4,), [b.node("Sigmoid", [b.batchnorm("x", 4, "bn")], "sigmoid")])


@stops(merge._with_previous, "refuse_other_readers", "merge", "wrong")
def a_factor_before_the_batchnorm_that_somebody_else_reads(b: GraphBuilder) -> ir.Model:
    product = b.node("Mul", ["x", b.weight("c", 4)], "mul")
    outputs = [b.node("Sigmoid", [value], f"s{k}") for k, value in enumerate([b.batchnorm(product, 4, "bn"), product])]
    return b.model((4,), outputs)


@stops(merge._with_next, "no arithmetic by constants", "merge", "wrong")
def a_factor_behind_the_batchnorm_that_is_not_its_only_reader(b: GraphBuilder) -> ir.Model:
    normal = b.batchnorm("x", 4, "bn")
    outputs = [b.node("Mul", [normal, b.weight("c", 4)], "mul"), b.node("Sigmoid", [normal], "sigmoid")]
    return b.model((4,), outputs)


@stops(merge._with_next, "does not read it as its data", "merge", "wrong")
def a_factor_that_is_the_batchnorm_of_a_constant(b: GraphBuilder) -> ir.Model:
    factor = b.batchnorm(b.weight("k", 1, 4), 4, "bn")
    return b.model((4,), [b.node("Mul", ["x", factor], "mul")])


# --- beside a layer --------------------------------------------------------------------------------------------------


def _sum(b: GraphBuilder, *terms: str) -> str:
    whole, *rest = terms
    for index, term in enumerate(rest):
        whole = b.node("Add", [whole, term], f"sum{index}")
    return whole


@stops(parallel.absorb_in_parallel, "nothing beside it", "parallel", "crash")
def a_batchnorm_beside_no_layer(b: GraphBuilder) -> ir.Model:
    return b.model((4,), [_sum(b, b.batchnorm("x", 4, "bn"), b.node("Sigmoid", ["x"], "sigmoid"))])


@stops(parallel._terms, "whole is value", "parallel", "twice")
def a_batchnorm_in_no_sum(b: GraphBuilder) -> ir.Model:
    """A sum of one has no other terms."""
    return b.model((4,), [b.node("Sigmoid", [b.batchnorm("x", 4, "bn")], "sigmoid")])


@stops(parallel._terms, "too many terms", "parallel", "crash")
def a_sum_of_seventeen_others(b: GraphBuilder) -> ir.Model:
    others = [b.node("Sigmoid", ["x"], f"sigmoid{k}") for k in range(17)]
    return b.model((4,), [_sum(b, *others, b.batchnorm("x", 4, "bn"))])


@stops(parallel._layer_that_reads, "is no layer that reads", "parallel", "wrong")
def a_layer_that_reads_something_else(b: GraphBuilder) -> ir.Model:
    other = b.gemm(b.node("Sigmoid", ["x"], "sigmoid"), 4, 4, "dense")
    return b.model((4,), [_sum(b, b.batchnorm("x", 4, "bn"), other)])


@stops(parallel._layer_that_reads, "refuse_other_readers", "parallel", "wrong")
def a_layer_that_somebody_else_reads_too(b: GraphBuilder) -> ir.Model:
    dense = b.gemm("x", 4, 4, "dense")
    return b.model((4,), [_sum(b, b.batchnorm("x", 4, "bn"), dense), b.node("Sigmoid", [dense], "sigmoid")])


@stops(parallel._beside_gemm, "transposes its input", "parallel", "wrong")
def a_gemm_that_transposes_its_input(b: GraphBuilder) -> ir.Model:
    return b.model((4,), [_sum(b, b.batchnorm("x", 4, "bn"), b.gemm("x", 4, 4, "dense", transA=1))], batch=4)


@stops(parallel._beside_convolution, "does not give one output", "parallel", "uncheckable", sizes={"h": 2})
def a_stride_that_leaves_one_place_which_the_sum_repeats(b: GraphBuilder) -> ir.Model:
    conv = b.node("Conv", ["x", b.weight("w", 3, 3, 1)], "conv", strides=[2])
    return b.model((3, "h"), [_sum(b, b.batchnorm("x", 3, "bn"), conv)])


@stops(parallel._tap_of_the_same_place, "does not keep the size", "parallel", "uncheckable", sizes={"h": 3})
def a_kernel_that_leaves_one_place_which_the_sum_repeats(b: GraphBuilder) -> ir.Model:
    conv = b.node("Conv", ["x", b.weight("w", 3, 3, 3)], "conv")
    return b.model((3, "h"), [_sum(b, b.batchnorm("x", 3, "bn"), conv)])


@stops(parallel._tap_of_the_same_place, "no tap of", "parallel", "wrong")
def a_dilated_kernel_with_no_tap_in_the_middle(b: GraphBuilder) -> ir.Model:
    conv = b.node("Conv", ["x", b.weight("w", 3, 3, 2)], "conv", dilations=[2], pads=[1, 1])
    return b.model((3, 6), [_sum(b, b.batchnorm("x", 3, "bn"), conv)])


# --- convolutions beside each other ----------------------------------------------------------------------------------


def _two_convolutions(
    b: GraphBuilder, small: dict[str, object], large: dict[str, object], weights: tuple[tuple[int, ...], ...]
) -> str:
    pairs = zip(("small", "large"), weights, (small, large), strict=True)
    return _sum(b, *(b.node("Conv", ["x", b.weight(f"{n}.w", *shape)], n, **options) for n, shape, options in pairs))


@stops(parallel.merge_convolutions, "covers it", "join", "crash", subject="small")
def a_convolution_beside_no_other(b: GraphBuilder) -> ir.Model:
    small = b.node("Conv", ["x", b.weight("w", 3, 3, 1)], "small")
    return b.model((3, 6), [_sum(b, small, b.node("Sigmoid", ["x"], "sigmoid"))])


@stops(parallel._reach, "pads automatically", "join", "wrong", subject="small")
def two_even_kernels_that_are_padded_at_other_ends(b: GraphBuilder) -> ir.Model:
    ends = ({"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"})
    return b.model((3, 6), [_two_convolutions(b, *ends, weights=((2, 3, 2), (2, 3, 2)))])  # type: ignore[arg-type]


@stops(parallel._merged, "differ in more than their kernels", "join", "wrong", subject="small")
def a_convolution_of_each_channel_beside_one_of_all(b: GraphBuilder) -> ir.Model:
    return b.model((4, 6), [_two_convolutions(b, {"group": 4}, {}, weights=((4, 1, 1), (4, 4, 1)))])


@stops(parallel._taps_over, "another size", "join", "uncheckable", subject="small", sizes={"h": 3})
def a_kernel_whose_one_place_the_sum_repeats(b: GraphBuilder) -> ir.Model:
    return b.model((3, "h"), [_two_convolutions(b, {}, {}, weights=((2, 3, 1), (2, 3, 3)))])


@stops(parallel._taps_over, "does not cover it", "join", "wrong", subject="small")
def a_dilated_kernel_with_gaps_where_the_other_has_taps(b: GraphBuilder) -> ir.Model:
    small, large = {"pads": [1, 1]}, {"pads": [2, 2], "dilations": [2]}
    return b.model((3, 6), [_two_convolutions(b, small, large, weights=((2, 3, 3), (2, 3, 3)))])  # type: ignore[arg-type]
