"""What would be wrong without each refusal of `absorb`: the layers that take a map."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper

from model_export.fold.absorb import channels, convolution, embedding, gemm, matmul, transposed
from tests.model_export.fold.graphs import GraphBuilder
from tests.model_export.fold.refusal_cases import stops

# --- channels --------------------------------------------------------------------------------------------------------


@stops(channels.along_channels, "the map varies along axis", "previous", "wrong")
def rows_that_are_as_many_as_channels(b: GraphBuilder) -> ir.Model:
    turned = b.node("Transpose", [b.node("Conv", ["x", b.weight("w", 5, 3, 1, 1)], "conv")], "turn", perm=[0, 2, 1, 3])
    return b.model((3, 5, 6), [b.batchnorm(turned, 5, "bn")])


@stops(channels.along_channels, "channels for a map of", "previous", "crash")
def a_batchnorm_of_other_channels_than_the_layers(b: GraphBuilder) -> ir.Model:
    """The model is not valid; but a fold says why it stays, and does not crash."""
    return b.model((4,), [b.batchnorm(b.gemm("x", 4, 4, "dense"), 3, "bn")])


@stops(channels.refuse_reading_elsewhere, "does not read it as its input", "next", "wrong")
def a_first_state_that_is_normalised(b: GraphBuilder) -> ir.Model:
    b.constant("axes", np.array([0], dtype=np.int64))
    state = b.node("Unsqueeze", [b.batchnorm("x", 4, "bn"), "axes"], "state")
    sequence = helper.make_tensor_value_info("s", TensorProto.DOUBLE, [5, "batch", 4])
    weights = [b.weight("w", 1, 4, 4), b.weight("r", 1, 4, 4), b.weight("c", 1, 8)]
    inputs = ["s", *weights, "", state]
    return b.model((4,), [b.node("RNN", inputs, "rnn", hidden_size=4)], inputs=(sequence,))


# --- convolutions ----------------------------------------------------------------------------------------------------


@stops(convolution.absorb_before, "pads with zeros", "next", "wrong")
def a_padded_convolution(b: GraphBuilder) -> ir.Model:
    inputs = [b.batchnorm("x", 3, "bn"), b.weight("w", 2, 3, 3)]
    return b.model((3, 5), [b.node("Conv", inputs, "conv", pads=[1, 1])])


@stops(convolution.read_weight, "groups and a weight", "previous", "twice")
def a_convolution_whose_groups_do_not_divide_its_outputs(b: GraphBuilder) -> ir.Model:
    """The model is not valid."""
    conv = b.node("Conv", ["x", b.weight("w", 3, 2, 1)], "conv", group=2)
    return b.model((4, 5), [b.batchnorm(conv, 3, "bn")])


@stops(transposed.absorb_before, "unevenly", "next", "wrong")
def a_shift_before_a_transposed_convolution(b: GraphBuilder) -> ir.Model:
    inputs = [b.batchnorm("x", 3, "bn"), b.weight("w", 3, 2, 3)]
    return b.model((3, 5), [b.node("ConvTranspose", inputs, "up", strides=[2])])


@stops(transposed._read_weight, "groups and a weight", "previous", "twice")
def a_transposed_convolution_whose_groups_do_not_divide_its_inputs(b: GraphBuilder) -> ir.Model:
    """The model is not valid."""
    up = b.node("ConvTranspose", ["x", b.weight("w", 3, 2, 1)], "up", group=2)
    return b.model((3, 5), [b.batchnorm(up, 4, "bn")])


# --- embeddings ------------------------------------------------------------------------------------------------------


def _indices(*shape: int | str) -> tuple[object, ...]:
    return (helper.make_tensor_value_info("i", TensorProto.INT64, shape),)


@stops(embedding.absorb_behind, "another axis than the first", "previous", "wrong")
def columns_that_are_looked_up(b: GraphBuilder) -> ir.Model:
    columns = b.node("Gather", [b.weight("table", 4, 4), "i"], "gather", axis=1)
    return b.model((4,), [b.node("Relu", ["x"], "relu"), b.batchnorm(columns, 4, "bn")], inputs=_indices(4))  # type: ignore[arg-type]


@stops(embedding.absorb_behind, "differs among the rows", "previous", "crash")
def words_that_are_normalised_by_their_place(b: GraphBuilder) -> ir.Model:
    words = b.node("Gather", [b.weight("table", 9, 4), "i"], "gather")
    return b.model((4,), [b.node("Relu", ["x"], "relu"), b.batchnorm(words, 3, "bn")], inputs=_indices("batch", 3))  # type: ignore[arg-type]


@stops(embedding.absorb_behind, "does not fit the table", "previous", "twice")
def a_batchnorm_of_other_channels_than_the_tables(b: GraphBuilder) -> ir.Model:
    """The model is not valid."""
    words = b.node("Gather", [b.weight("table", 9, 4), "i"], "gather")
    return b.model((4,), [b.node("Relu", ["x"], "relu"), b.batchnorm(words, 3, "bn")], inputs=_indices("batch"))  # type: ignore[arg-type]


# --- dense layers ----------------------------------------------------------------------------------------------------


@stops(gemm._read, "broadcasts by other rules", "previous", "unseen")
def a_gemm_of_opset_6_whose_bias_must_be_as_large_as_its_result(b: GraphBuilder) -> ir.Model:
    dense = b.node("Gemm", ["x", b.weight("w", 3, 4), b.weight("c", 1, 4)], "dense")
    return b.model((3,), [b.batchnorm(dense, 4, "bn", is_test=1)], batch=1, opset=6)


@stops(gemm._read, "axes, expected 2", "previous", "twice")
def a_gemm_whose_weight_has_three_axes(b: GraphBuilder) -> ir.Model:
    """The model is not valid."""
    dense = b.node("Gemm", ["x", b.weight("w", 4, 4, 1)], "dense")
    return b.model((4,), [b.batchnorm(dense, 4, "bn")])


@stops(gemm.read_bias, "not one value for each", "previous", "wrong")
def a_bias_for_each_of_as_many_instances_as_outputs(b: GraphBuilder) -> ir.Model:
    dense = b.node("Gemm", ["x", b.weight("w", 3, 4), b.weight("c", 4, 1)], "dense")
    return b.model((3,), [b.batchnorm(dense, 4, "bn")], batch=4)


@stops(matmul.absorb_before, "reads it twice", "next", "wrong")
def a_weight_that_is_normalised(b: GraphBuilder) -> ir.Model:
    weight = b.batchnorm(b.weight("w", 4, 4), 4, "bn")
    return b.model((4,), [b.node("MatMul", ["x", weight], "dense")])


@stops(matmul._read, "multiplies a vector", "next", "twice")
def a_product_with_a_vector(b: GraphBuilder) -> ir.Model:
    """A vector has no axis of outputs: no map fits it either."""
    return b.model((4,), [b.node("MatMul", [b.batchnorm("x", 4, "bn"), b.weight("w", 4)], "dense")])


@stops(matmul._refuse_other_axis, "equal sizes", "previous", "wrong")
def tokens_that_are_as_many_as_features(b: GraphBuilder) -> ir.Model:
    product = b.node("MatMul", ["x", b.weight("w", 4, 4)], "dense")
    return b.model((4, 4), [b.batchnorm(product, 4, "bn")])


@stops(matmul._scaled, "does not fit the weight", "previous", "unseen", subject="scale")
def a_scale_for_each_instance(b: GraphBuilder) -> ir.Model:
    """The weight would have to become as many as there are instances, and is stated to be one."""
    product = b.node("MatMul", ["x", b.weight("w", 4, 5)], "dense")
    scaled = b.node("Mul", [product, b.weight("s", 2, 1, 1)], "scale")
    return b.model((3, 4), [b.node("Add", [scaled, b.weight("t", 2, 1, 1)], "shift")], batch=2)


@stops(matmul.add_diagonal, "differs among the matrices", "parallel", "wrong", subject="scale")
def a_scale_for_each_of_as_many_instances_as_features_beside_a_product(b: GraphBuilder) -> ir.Model:
    scaled = b.node("Mul", ["x", b.weight("s", 4, 1, 1)], "scale")
    shifted = b.node("Add", [scaled, b.weight("t", 4, 1, 1)], "shift")
    product = b.node("MatMul", ["x", b.weight("w", 4, 4)], "dense")
    return b.model((3, 4), [b.node("Add", [shifted, product], "sum")], batch=4)


@stops(matmul._read, "scope.opset < 7", "previous", "unseen")
def a_product_of_opset_6_behind_which_no_bias_is_repeated(b: GraphBuilder) -> ir.Model:
    return b.model(
        (4,), [b.batchnorm(b.node("MatMul", ["x", b.weight("w", 4, 3)], "dense"), 3, "bn", is_test=1)], opset=6
    )
