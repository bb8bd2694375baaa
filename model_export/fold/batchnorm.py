"""Reads one BatchNormalization node into the affine map that it is, or says why it is not one that can be folded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from model_export.affine import Affine, Array, affine_of_batchnorm
from model_export.fold.ledger import Refused
from model_export.fold.values import constant, input_of, is_op

PARAMETERS = ("scale", "offset", "mean", "variance")


def is_batchnorm(node: ir.Node) -> bool:
    """Whether this is a BatchNormalization of the ONNX standard."""
    return is_op(node, "BatchNormalization")


def read_batchnorm(node: ir.Node, opset: int) -> Affine:
    """The map of a BatchNormalization in inference mode.

    Raises:
        Refused: it normalises by the batch, its parameters are not constant, or they make no finite map.
    """
    if not node.outputs or input_of(node, 0) is None:
        raise Refused("it has no input or no output")
    _refuse_training_mode(node, opset)
    gamma, beta, mean, var = _parameters(node)
    eps = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    if not all(np.isfinite(values).all() for values in (gamma, beta, mean, var)):
        raise Refused("its parameters are not all finite")
    if (var + eps <= 0).any() or (var < 0).any():
        raise Refused(f"its variance is negative in channel {int(np.argmin(var))}, or its epsilon is not positive")
    return affine_of_batchnorm(gamma, beta, mean, var, eps)


def _parameters(node: ir.Node) -> tuple[Array, ...]:
    values = tuple(constant(input_of(node, k), f"its {what}") for k, what in enumerate(PARAMETERS, start=1))
    if {array.shape for array in values} != {(len(values[0].reshape(-1)),)}:
        raise Refused(f"its parameters have shapes {[array.shape for array in values]}, expected one value a channel")
    return values


def _refuse_training_mode(node: ir.Node, opset: int) -> None:
    flags = {name: attribute.as_int() for name, attribute in node.attributes.items() if name in _FLAGS}
    if flags.get("training_mode", 0) or any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise Refused("it is in training mode: it normalises by the batch, not by frozen statistics")
    if opset < 7 and not flags.get("is_test", 0):
        raise Refused(f"it is in training mode (opset {opset} without is_test)")
    if not flags.get("spatial", 1):
        raise Refused("its statistics are per element, not per channel (spatial=0)")


_FLAGS = ("training_mode", "is_test", "spatial")
