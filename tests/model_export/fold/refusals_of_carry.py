"""What would be wrong without each refusal of `carry` and `layout`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from model_export import affine as algebra
from model_export.fold import carry, layout
from model_export.fold.carry import activations, arithmetic, joining, pooling, rearranging
from tests.model_export.fold.graphs import GraphBuilder
from tests.model_export.fold.refusal_cases import rule_instead, stops


def _ints(b: GraphBuilder, name: str, *values: int) -> str:
    return b.constant(name, np.array(values, dtype=np.int64))


def _same_forward(node: ir.Node, index: int, affine: algebra.Affine, scope: Any) -> dict[int, algebra.Affine]:
    return {0: affine}


def _same_backward(node: ir.Node, index: int, affine: algebra.Affine, scope: Any) -> list[dict[int, algebra.Affine]]:
    return [{0: affine}]


# --- operators without a rule ----------------------------------------------------------------------------------------


@stops(
    carry.carry_forward,
    "does not absorb",
    "next",
    "wrong",
    switch_off=rule_instead(carry.FORWARD, "Sigmoid", _same_forward),
)
def a_sigmoid_behind_the_batchnorm(b: GraphBuilder) -> ir.Model:
    hidden = b.node("Sigmoid", [b.batchnorm("x", 4, "bn")], "sigmoid")
    return b.model((4,), [b.gemm(hidden, 4, 3, "dense")])


@stops(
    carry.carry_backward,
    "does not absorb",
    "previous",
    "wrong",
    switch_off=rule_instead(carry.BACKWARD, "Sigmoid", _same_backward),
)
def a_sigmoid_before_the_batchnorm(b: GraphBuilder) -> ir.Model:
    hidden = b.node("Sigmoid", [b.gemm("x", 4, 3, "dense")], "sigmoid")
    return b.model((4,), [b.batchnorm(hidden, 3, "bn")])


@stops(
    arithmetic._sum_forward,
    "adds something else",
    "next",
    "wrong",
    switch_off=rule_instead(carry.FORWARD, "Add", _same_forward),
)
def a_sum_with_something_else(b: GraphBuilder) -> ir.Model:
    total = b.node("Add", [b.batchnorm("x", 4, "bn"), b.node("Sigmoid", ["x"], "sigmoid")], "sum")
    return b.model((4,), [b.gemm(total, 4, 3, "dense")])


# --- activations -----------------------------------------------------------------------------------------------------


@stops(activations.refuse_shift, "keeps a scale", "next", "wrong")
def a_shift_before_relu(b: GraphBuilder) -> ir.Model:
    hidden = b.node("Relu", [b.batchnorm("x", 4, "bn", positive=True)], "relu")
    return b.model((4,), [b.gemm(hidden, 4, 3, "dense")])


@stops(activations.refuse_negative_scale, "keeps a positive scale", "next", "wrong")
def a_negative_scale_before_relu(b: GraphBuilder) -> ir.Model:
    hidden = b.node("Relu", [b.batchnorm("x", 4, "bn", shifts=False)], "relu")
    return b.model((4,), [b.gemm(hidden, 4, 3, "dense")])


@stops(activations.refuse_other_outputs, "second output", "next", "wrong")
def indices_of_maxima_where_a_scale_is_zero(b: GraphBuilder) -> ir.Model:
    """Where all values are the same the first is the maximum; where they are not yet scaled to zero, another may be."""
    normal = b.batchnorm("x", 3, "bn", positive=True)
    b.constant("bn.scale", [0.0, 1.0, 2.0])
    b.nodes.append(helper.make_node("MaxPool", [normal], ["max", "where"], name="pool", kernel_shape=[4]))
    where = b.node("Cast", ["where"], "number", to=TensorProto.DOUBLE)
    return b.model((3, 9), [b.node("Conv", ["max", b.weight("w", 2, 3, 1)], "conv"), where])


def _as_in_opset_13(model: ir.Model) -> ir.Model:
    """Dropout says that it trains by inputs now, and BatchNormalization is in inference mode if it says nothing."""
    for node in model.graph:
        node.attributes.pop("is_test", None)
        if node.op_type == "Dropout":
            ratio, trains = (ir.Value(name=name, const_value=ir.tensor(v)) for name, v in (("r", 0.5), ("t", True)))
            for value in (ratio, trains):
                model.graph.register_initializer(value)
            node.attributes.clear()
            node.attributes["seed"] = ir.AttrInt64("seed", 1)
            node.resize_inputs(3)
            node.replace_input_with(1, ratio)
            node.replace_input_with(2, trains)
    model.opset_imports[""] = 13
    return model


@stops(activations._dropout, "scope.opset < 7", "next", "unseen", meaning=_as_in_opset_13)
def a_dropout_of_opset_6_that_drops(b: GraphBuilder) -> ir.Model:
    normal = b.batchnorm("x", 3, "bn", is_test=1)
    dropped = b.node("Dropout", [normal], "drop", ratio=0.5)
    return b.model((3, 5), [b.node("Conv", [dropped, b.weight("w", 2, 3, 1)], "conv")], opset=6)


@stops(activations._dropout, "flag is not None", "next", "unseen")
def a_dropout_that_drops(b: GraphBuilder) -> ir.Model:
    ratio = b.constant("ratio", 0.5)
    flag = b.node("Cast", [_ints(b, "yes", 1)], "flag", to=TensorProto.BOOL)
    flag = b.node("Squeeze", [flag], "scalar")
    dropped = b.node("Dropout", [b.batchnorm("x", 4, "bn"), ratio, flag], "drop", seed=1)
    return b.model((4,), [b.gemm(dropped, 4, 3, "dense")])


@stops(activations._cast, "between floating-point", "next", "wrong")
def a_cast_to_whole_numbers(b: GraphBuilder) -> ir.Model:
    whole = b.node("Cast", [b.batchnorm("x", 4, "bn")], "whole", to=TensorProto.INT64)
    return b.model((4,), [b.gemm(b.node("Cast", [whole], "back", to=TensorProto.DOUBLE), 4, 3, "dense")])


@stops(activations._cast, "would round values", "next", "unseen")
def a_cast_to_float16_of_what_is_large_before_it_is_normalised(b: GraphBuilder) -> ir.Model:
    normal = b.batchnorm(b.node("Add", ["x", b.constant("far", 1e5)], "large"), 4, "bn")
    b.constant("bn.mean", [1e5] * 4)
    half = b.node("Cast", [normal], "half", to=TensorProto.FLOAT16)
    return b.model((4,), [b.gemm(b.node("Cast", [half], "back", to=TensorProto.DOUBLE), 4, 3, "dense")])


@stops(activations._only_first, "does not read it as its data", "next", "wrong")
def a_slope_that_is_normalised(b: GraphBuilder) -> ir.Model:
    slope = b.batchnorm("x", 4, "bn", positive=True, shifts=False)
    hidden = b.node("PRelu", [b.node("Tanh", ["x"], "tanh"), slope], "prelu")
    return b.model((4,), [b.gemm(hidden, 4, 3, "dense")])


# --- arithmetic ------------------------------------------------------------------------------------------------------


@stops(arithmetic.fits, "is not proved to have", "previous", "crash")
def a_term_without_channels(b: GraphBuilder) -> ir.Model:
    picture = b.node("Conv", ["x", b.weight("w", 3, 2, 1, 1)], "conv")
    mask = b.node("MatMul", ["m", b.weight("v", 6, 4)], "mask")
    total = b.node("Add", [picture, mask], "sum")
    other = helper.make_tensor_value_info("m", TensorProto.DOUBLE, [5, 6])
    return b.model((2, 5, 4), [b.batchnorm(total, 3, "bn")], inputs=(other,))


@stops(arithmetic._product_backward, "not alternatives", "previous", "crash")
def a_product_of_factors_with_unknown_channels(b: GraphBuilder) -> ir.Model:
    product = b.node("Mul", [b.node("Relu", ["x"], "relu"), b.node("Sigmoid", ["x"], "sigmoid")], "mul")
    return b.model((None, 5), [b.batchnorm(product, 3, "bn", shifts=False)])


@stops(arithmetic._product_backward, "refuse_shift", "previous", "wrong")
def a_shift_behind_a_product(b: GraphBuilder) -> ir.Model:
    product = b.node("Mul", [b.gemm("x", 4, 3, "dense"), b.node("Sigmoid", [b.gemm("x", 4, 3, "gate")], "s")], "mul")
    return b.model((4,), [b.batchnorm(product, 3, "bn")])


@stops(arithmetic._product_forward, "refuse_shift", "next", "wrong")
def a_shift_before_a_product(b: GraphBuilder) -> ir.Model:
    product = b.node("Mul", [b.batchnorm("x", 4, "bn"), b.node("Sigmoid", ["x"], "sigmoid")], "mul")
    return b.model((4,), [b.gemm(product, 4, 3, "dense")])


@stops(arithmetic._product_forward, "divides by it", "next", "wrong")
def a_scale_of_what_is_divided_by(b: GraphBuilder) -> ir.Model:
    quotient = b.node("Div", [b.node("Sigmoid", ["x"], "sigmoid"), b.batchnorm("x", 4, "bn", shifts=False)], "div")
    return b.model((4,), [b.gemm(quotient, 4, 3, "dense")])


@stops(arithmetic._refuse_old_broadcast, "scope.opset < 7", "previous", "unseen")
def a_sum_of_opset_6_with_a_bias_of_its_own_axis(b: GraphBuilder) -> ir.Model:
    """The bias would get the shape that later rules ask for, and `axis` would still lay it along the channels."""
    conv = b.node("Conv", ["x", b.weight("w", 3, 2, 1, 1)], "conv")
    total = b.node("Add", [conv, b.weight("c", 3)], "add", broadcast=1, axis=1)
    return b.model((2, 3, 3), [b.batchnorm(total, 3, "bn", is_test=1)], opset=6)


# --- joining ---------------------------------------------------------------------------------------------------------


@stops(joining._length, "is not proved", "next", "crash")
def a_concat_with_a_part_of_unknown_length(b: GraphBuilder) -> ir.Model:
    other = helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["batch", None, 5])
    joined = b.node("Concat", [b.batchnorm("x", 3, "bn"), b.node("Relu", ["y"], "relu")], "join", axis=1)
    return b.model((3, 5), [b.node("Conv", [joined, b.weight("w", 2, 5, 1)], "conv")], inputs=(other,))


@stops(joining._varying_cut, "along several axes", "next", "wrong")
def channels_on_two_axes_that_are_both_turned_around(b: GraphBuilder) -> ir.Model:
    folded = b.node("Reshape", [b.batchnorm("x", 4, "bn"), _ints(b, "target", -1, 2, 2, 3)], "fold")
    far = np.iinfo(np.int64).min
    ranges = [_ints(b, "s", -1, -1), _ints(b, "e", far, far), _ints(b, "a", 1, 2), _ints(b, "t", -1, -1)]
    turned = b.node("Slice", [folded, *ranges], "turn")
    return b.model((4, 3), [b.gemm(b.node("Flatten", [turned], "flat"), 12, 2, "dense")])


@stops(joining._slice_backward, "not proved to take", "previous", "crash")
def a_slice_of_other_channels_than_the_batchnorms(b: GraphBuilder) -> ir.Model:
    """The model is not valid; but a fold says why it stays, and does not crash."""
    ranges = [_ints(b, "s", 0), _ints(b, "e", 3), _ints(b, "a", 1)]
    part = b.node("Slice", [b.gemm("x", 4, 6, "dense"), *ranges], "part")
    return b.model((4,), [b.batchnorm(part, 2, "bn")])


# --- pooling ---------------------------------------------------------------------------------------------------------


@stops(pooling._check, "counts padded zeros", "next", "wrong")
def an_average_that_counts_padding(b: GraphBuilder) -> ir.Model:
    options = {"kernel_shape": [3], "pads": [1, 1], "count_include_pad": 1}
    pooled = b.node("AveragePool", [b.batchnorm("x", 3, "bn")], "pool", **options)
    return b.model((3, 6), [b.node("Conv", [pooled, b.weight("w", 2, 3, 1)], "conv")])


@stops(pooling._check, "refuse_shift", "next", "wrong")
def a_sum_of_as_many_shifts_as_places(b: GraphBuilder) -> ir.Model:
    total = b.node("ReduceSum", [b.batchnorm("x", 3, "bn"), _ints(b, "axes", 2)], "total", keepdims=0)
    return b.model((3, 6), [b.gemm(total, 3, 2, "dense")])


@stops(pooling._check, "refuse_negative_scale", "next", "wrong")
def a_maximum_that_becomes_a_minimum(b: GraphBuilder) -> ir.Model:
    pooled = b.node("MaxPool", [b.batchnorm("x", 3, "bn")], "pool", kernel_shape=[3])
    b.constant("bn.scale", [-1.0, 1.0, -2.0])
    return b.model((3, 6), [b.node("Conv", [pooled, b.weight("w", 2, 3, 1)], "conv")])


@stops(pooling._refuse_variation, "pools over the channels", "next", "crash")
def a_mean_over_the_channels(b: GraphBuilder) -> ir.Model:
    mean = b.node("ReduceMean", [b.batchnorm("x", 3, "bn"), _ints(b, "axes", 1)], "mean", keepdims=0)
    return b.model((3, 6), [b.gemm(mean, 6, 2, "dense")])


# --- rearranging -----------------------------------------------------------------------------------------------------


@stops(rearranging._data, "does not read it as its data", "next", "crash")
def a_padded_value_that_is_normalised(b: GraphBuilder) -> ir.Model:
    value = b.node("Squeeze", [b.batchnorm("x", 1, "bn")], "value")
    padded = b.node("Pad", [b.node("Sigmoid", ["x"], "y"), _ints(b, "pads", 0, 1, 0, 1), value], "pad")
    return b.model((1,), [b.gemm(padded, 3, 2, "dense")], batch=1)


@stops(rearranging._reshape_lengths, "is not known", "previous", "crash")
def a_reshape_of_what_has_no_known_shape(b: GraphBuilder) -> ir.Model:
    wanted = helper.make_tensor_value_info("wanted", TensorProto.INT64, ["k"])
    unknown = b.node("Reshape", ["x", "wanted"], "unknown")
    flat = b.node("Reshape", [unknown, _ints(b, "target", -1, 4)], "flat")
    return b.model((4,), [b.batchnorm(flat, 4, "bn")], inputs=(wanted,))


@stops(rearranging._expand_backward, "repeats along the channels", "previous", "crash")
def a_picture_repeated_for_each_channel(b: GraphBuilder) -> ir.Model:
    picture = b.gemm("x", 6, 4, "dense")
    return b.model(
        (6,), [b.batchnorm(b.node("Expand", [picture, _ints(b, "to", 2, 3, 5, 4)], "expand"), 3, "bn")], batch=5
    )


@stops(rearranging._pad, "pads the channels", "next", "uncheckable")
def a_pad_that_moves_the_channels_by_one(b: GraphBuilder) -> ir.Model:
    pads = _ints(b, "pads", 0, 1, 0, 0, -1, 0)
    moved = b.node("Pad", [b.batchnorm("x", 3, "bn", shifts=False), pads], "pad")
    return b.model((3, 5), [b.node("Conv", [moved, b.weight("w", 2, 3, 1)], "conv")])


@stops(rearranging._pad, "the map would not reach", "next", "wrong")
def zeros_around_what_is_shifted(b: GraphBuilder) -> ir.Model:
    padded = b.node("Pad", [b.batchnorm("x", 3, "bn"), _ints(b, "pads", 0, 0, 1, 0, 0, 1)], "pad")
    return b.model((3, 5), [b.node("Conv", [padded, b.weight("w", 2, 3, 3)], "conv")])


@stops(rearranging._resize, "beyond the edge", "next", "wrong")
def a_crop_that_reaches_beyond_the_edge(b: GraphBuilder) -> ir.Model:
    roi = b.constant("roi", [0.0, 0.0, -0.5, 1.0, 1.0, 1.5])
    inputs = [b.batchnorm("x", 3, "bn"), roi, b.constant("scales", [1.0, 1.0, 2.0])]
    b.weights["scales"] = b.weights["scales"].astype(np.float32)
    options = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 9.0, "mode": "linear"}
    cropped = b.node("Resize", inputs, "crop", **options)
    return b.model((3, 6), [b.node("Conv", [cropped, b.weight("w", 2, 3, 1)], "conv")])


@stops(rearranging._resize, "to leave the channels", "next", "twice")
def a_resize_of_the_channels(b: GraphBuilder) -> ir.Model:
    """What has another length along the channels fits no layer behind either."""
    b.weights["scales"] = np.array([1.0, 2.0, 1.0], dtype=np.float32)
    longer = b.node("Resize", [b.batchnorm("x", 3, "bn"), "", "scales"], "longer", mode="nearest")
    return b.model((3, 5), [b.node("Conv", [longer, b.weight("w", 2, 6, 1)], "conv")])


@stops(rearranging._refuse_all_but_channels, "mixes what the map tells apart", "previous", "twice")
def rows_that_were_channels_before_depth_became_space(b: GraphBuilder) -> ir.Model:
    """What varies along another axis than the channels fits no convolution before either."""
    wide = b.node("DepthToSpace", [b.node("Conv", ["x", b.weight("w", 4, 2, 1, 1)], "conv")], "wide", blocksize=2)
    turned = b.node("Transpose", [wide], "turn", perm=[0, 2, 1, 3])
    return b.model((2, 2, 3), [b.batchnorm(turned, 4, "bn")])


def _by_equal_size(affine: algebra.Affine, before: Any, after: Any, what: str) -> algebra.Affine:
    """The naive rule: the channels are where there are as many."""
    return affine.map(lambda values: values.reshape(tuple(n if n == values.size else 1 for n in after)))


def _naive_reshape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rearranging, "reshape_affine", _by_equal_size)


@stops(layout.reshape_affine, "keep channels together", "next", "wrong", switch_off=_naive_reshape)
def a_reshape_that_deals_the_elements_out_anew(b: GraphBuilder) -> ir.Model:
    flat = b.node("Reshape", [b.batchnorm("x", 4, "bn"), _ints(b, "target", -1, 4)], "mix")
    return b.model((4, 3), [b.gemm(flat, 4, 2, "dense")])
