"""Reads one BatchNormalization node into the affine map that it is, or says why it is not one that can be folded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_export.affine import Affine, Array, affine_of_batchnorm
from model_export.fold.ledger import Refused
from model_export.fold.nodes import float_of, has_other_outputs, input_of, int_of, is_op
from model_export.fold.scope import Scope
from model_export.ir import ir

PARAMETERS = ("scale", "offset", "mean", "variance")


@dataclass(frozen=True)
class Parameters:
    """What a BatchNormalization holds: γ, β, μ, σ², four float64 arrays of shape (channels,), and ε."""

    scale: Array
    offset: Array
    mean: Array
    var: Array
    eps: float

    @property
    def affine(self) -> Affine:
        """The map along the channels, of shape (channels,)."""
        return affine_of_batchnorm(self.scale, self.offset, self.mean, self.var, self.eps)


def is_batchnorm(node: ir.Node | None) -> bool:
    """Whether this is a BatchNormalization of the ONNX standard."""
    return is_op(node, "BatchNormalization")


def read_batchnorm(node: ir.Node, scope: Scope) -> Parameters:
    """The parameters of a BatchNormalization in inference mode.

    Raises:
        Refused: it normalises by the batch, its parameters are not constant, or they make no finite map.
    """
    if not node.outputs or input_of(node, 0) is None:
        raise Refused("it has no input or no output")
    _refuse_training_mode(node, scope.opset)
    scale, offset, mean, var = _arrays(node, scope)
    eps = float_of(node, "epsilon", 1e-5)
    if not all(np.isfinite(values).all() for values in (scale, offset, mean, var)):
        raise Refused("its parameters are not all finite")
    if (var + eps <= 0).any() or (var < 0).any():
        raise Refused(f"its variance is negative in channel {int(np.argmin(var))}, or its epsilon is not positive")
    return Parameters(scale, offset, mean, var, eps)


def _arrays(node: ir.Node, scope: Scope) -> tuple[Array, ...]:
    values = tuple(
        scope.constants.array(input_of(node, k), f"its {what}") for k, what in enumerate(PARAMETERS, start=1)
    )
    if {array.shape for array in values} != {(len(values[0].reshape(-1)),)}:
        raise Refused(f"its parameters have shapes {[array.shape for array in values]}, expected one value a channel")
    return values


def _refuse_training_mode(node: ir.Node, opset: int) -> None:
    if int_of(node, "training_mode", 0) or has_other_outputs(node):
        raise Refused("it is in training mode: it normalises by the batch, not by frozen statistics")
    if opset < 7 and not int_of(node, "is_test", 0):
        raise Refused(f"it is in training mode (opset {opset} without is_test)")
    if not int_of(node, "spatial", 1):
        raise Refused("its statistics are per element, not per channel (spatial=0)")
