"""BatchNorms inside the body of an If, Loop or Scan and inside a model's own function."""

from __future__ import annotations

from onnx import GraphProto, TensorProto, helper, numpy_helper

from benchmarks.bank.case import folds, keeps
from benchmarks.bank.graph import EPS, Graph, batchnorm_parameters


def _branch(g: Graph, x: str, then: GraphProto, other: GraphProto) -> str:
    """An If that takes its first branch."""
    return g.op("If", g.always(x), name="branch", then_branch=then, else_branch=other)


@folds()
def branch_with_weights_inside(g: Graph) -> str:
    """Conv and BatchNorm in a branch of an If that holds their weights."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    then, other = g.body("then"), g.body("else")
    result = then.batchnorm(then.conv(x, g.n(3), g.n(4)), g.n(4))
    return _branch(g, x, then.body_proto(result), other.body_proto(other.conv(x, g.n(3), g.n(4))))


@folds()
def branch_with_weights_outside(g: Graph) -> str:
    """Conv and BatchNorm in a branch of an If; their weights are initializers of the main graph."""
    x = g.input(g.n(3), g.n(6), g.n(5))
    then, other = g.body("then"), g.body("else")
    result = then.batchnorm(then.conv(x, g.n(3), g.n(4)), g.n(4))
    g.weights.update(then.weights)
    then.weights.clear()
    return _branch(g, x, then.body_proto(result), other.body_proto(other.conv(x, g.n(3), g.n(4))))


@folds()
def weight_read_by_a_body(g: Graph) -> str:
    """Gemm and BatchNorm; the weight is read in the body of an If too, and must stay what it is there."""
    x, weight = g.input(g.n(6)), g.weight(g.n(6), g.n(5))
    then, other = g.body("then"), g.body("else")
    inside = _branch(
        g, x, then.body_proto(then.op("MatMul", x, weight)), other.body_proto(other.gemm(x, g.n(6), g.n(5)))
    )
    normal = g.batchnorm(g.op("Gemm", x, weight), g.n(5))
    return g.op("Mul", g.op("Sigmoid", inside), g.op("Sigmoid", normal))


@folds()
def layer_before_what_a_body_reads(g: Graph) -> str:
    """Gemm and BatchNorm, whose output only the bodies of an If read."""
    x = g.input(g.n(6))
    normal = g.batchnorm(g.gemm(x, g.n(6), g.n(5)), g.n(5))
    then, other = g.body("then"), g.body("else")
    return _branch(g, x, then.body_proto(then.op("Relu", normal)), other.body_proto(other.op("Sigmoid", normal)))


@folds()
def function_with_constants(g: Graph) -> str:
    """Conv and BatchNorm in a function of the model's own, with Constant nodes for their weights."""
    c, inside = g.n(4), g.body("block")
    inside.batchnorm(inside.conv("a", g.n(3), c), c)
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))
        for name, values in inside.weights.items()
    ]
    nodes = [*constants, *inside.nodes]
    opsets = [helper.make_opsetid("", g.opset)]
    g.functions.append(helper.make_function("local", "Block", ["a"], ["bn_out"], nodes, opsets))
    y = g.op("Block", g.input(g.n(3), g.n(6), g.n(5)), name="block", domain="local")
    return g.op("Relu", y)


@keeps()
def alone_in_a_branch(g: Graph) -> str:
    """A BatchNorm in a branch that reads the main graph's input: there is no layer for it."""
    x = g.input(g.n(4), g.n(5))
    then, other = g.body("then"), g.body("else")
    normal = then.op("Sigmoid", then.batchnorm(x, g.n(4)))
    return _branch(g, x, then.body_proto(normal), other.body_proto(other.op("Relu", x)))


@keeps()
def read_by_a_body(g: Graph) -> str:
    """A BatchNorm of the input, read by a Gemm in a body of an If and by a Relu in the other."""
    x = g.input(g.n(6))
    normal = g.batchnorm(x, g.n(6))
    then, other = g.body("then"), g.body("else")
    return _branch(g, x, then.body_proto(then.gemm(normal, g.n(6), g.n(6))), other.body_proto(other.op("Relu", normal)))


@keeps(reason="constant|overrid|caller|parameter|training|function|input")
def function_with_parameters_of_its_caller(g: Graph) -> str:
    """BatchNorm in a function that is called twice, with other parameters each time."""
    names = ["scale", "offset", "mean", "var"]
    node = helper.make_node("BatchNormalization", ["a", *names], ["y"], name="bn", epsilon=EPS)
    opsets = [helper.make_opsetid("", g.opset)]
    g.functions.append(helper.make_function("local", "Normal", ["a", *names], ["y"], [node], opsets))
    value = g.input(g.n(4), g.n(5))
    for _ in range(2):
        parameters = [g.constant(one) for one in batchnorm_parameters(g.draw, g.n(4)).values()]
        value = g.op("Sigmoid", g.op("Normal", value, *parameters, domain="local"))
    return value


@folds()
def loop_that_applies_a_layer_twice(g: Graph) -> str:
    """Gemm and BatchNorm in the body of a Loop, whose input is what the last turn gave."""
    n = g.n(5)
    x, turns = g.input(n), g.op("Squeeze", g.ints(2))
    body = g.body("loop")
    result = body.op("Sigmoid", body.batchnorm(body.gemm("state", n, n), n))
    go_on = body.op("Identity", "go")
    inputs = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", g.elem_type, ["batch", n]),
    ]
    outputs = [
        helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
        helper.make_tensor_value_info(result, g.elem_type, ["batch", n]),
    ]
    proto = helper.make_graph(body.nodes, "loop", inputs, outputs, body.initializers())
    return g.op(
        "Reshape", g.op("Loop", turns, g.always(x), x, name="loop", body=proto), g.ints(-1, n)
    )  # states its shape


@folds()
def scan_over_the_times_of_a_sequence(g: Graph) -> str:
    """BatchNorm and Gemm in the body of a Scan, which reads a sequence one time after the other."""
    n = g.n(5)
    x = g.op("Transpose", g.input(g.n(4), n), perm=[1, 0, 2])
    body = g.body("scan")
    result = body.op("Sigmoid", body.gemm(body.batchnorm("now", n), n, n))
    inputs = [helper.make_tensor_value_info("now", g.elem_type, ["batch", n])]
    outputs = [helper.make_tensor_value_info(result, g.elem_type, ["batch", n])]
    proto = helper.make_graph(body.nodes, "scan", inputs, outputs, body.initializers())
    return g.op("Scan", x, name="scan", num_scan_inputs=1, body=proto)
