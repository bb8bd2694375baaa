"""GRU, LSTM and RNN: a map on the sequence that they read goes into the input weights, and into the input's bias.

W is (directions, gates·hidden, inputs); B is (directions, 2·gates·hidden), of which the first half is added to W x
in every gate, also in a GRU's with linear_before_reset. The states are not touched.
"""

from __future__ import annotations

import numpy as np

from model_export.affine import Affine
from model_export.fold.absorb.channels import along_channels, refuse_reading_elsewhere
from model_export.fold.constants import Exact
from model_export.fold.edit import Edit
from model_export.fold.nodes import input_of, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir


def absorb_before(node: ir.Node, index: int, affine: Affine, scope: Scope) -> Edit:
    """Fold a map on the sequence, whose features are its last axis."""
    refuse_reading_elsewhere(node, index)
    weight = scope.constants.read(input_of(node, 1), f"the weight of {name_of(node)}")
    channels = along_channels(affine, axis=2, num_channels=weight.shape[2], node=node)
    scaled = Exact(lambda: weight.compute() * channels.scale, weight.shape, weight.dtype)
    constants = {(node, 1): scaled}
    if channels.has_shift:
        bias = _read_bias(node, weight, scope)
        bias[:, : weight.shape[1]] += weight.compute() @ channels.shift
        constants[node, 3] = Exact(lambda: bias, bias.shape, weight.dtype)
    return Edit(constants=constants, layers=(node,))


def _read_bias(node: ir.Node, weight: Exact, scope: Scope) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if input_of(node, 3) is None:
        return np.zeros((weight.shape[0], 2 * weight.shape[1]))
    return scope.constants.array(input_of(node, 3), f"the bias of {name_of(node)}").copy()
