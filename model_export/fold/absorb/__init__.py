"""Linear operators take an affine map into their weights: what this does to each spelling of "linear" in ONNX.

    behind    the map stands on the operator's output: rows of the weight are scaled, the bias is scaled and shifted
    before    the map stands on the operator's input `index`: columns are scaled, the bias takes what the shift becomes

Each gives the edit, or refuses with a reason. The algebra of both stands in `model_export.affine`.
"""

from __future__ import annotations

from collections.abc import Callable

from model_export.affine import Affine
from model_export.fold.absorb import convolution, embedding, gemm, matmul, recurrent, transposed
from model_export.fold.edit import Edit
from model_export.fold.nodes import is_op
from model_export.fold.scope import Scope
from model_export.ir import ir

Behind = Callable[[ir.Node, Affine, Scope], Edit]
Before = Callable[[ir.Node, int, Affine, Scope], Edit]

BEHIND: dict[str, Behind] = {
    "Conv": convolution.absorb_behind,
    "ConvTranspose": transposed.absorb_behind,
    "Gather": embedding.absorb_behind,
    "Gemm": gemm.absorb_behind,
    "MatMul": matmul.absorb_behind,
}
BEFORE: dict[str, Before] = {
    "Conv": convolution.absorb_before,
    "ConvTranspose": transposed.absorb_before,
    "GRU": recurrent.absorb_before,
    "Gemm": gemm.absorb_before,
    "LSTM": recurrent.absorb_before,
    "MatMul": matmul.absorb_before,
    "RNN": recurrent.absorb_before,
}


def takes_behind(node: ir.Node) -> bool:
    """Whether the operator is one that takes a map on its output."""
    return is_op(node, *BEHIND)


def takes_before(node: ir.Node) -> bool:
    """Whether the operator is one that takes a map on its input."""
    return is_op(node, *BEFORE)


def absorb_behind(node: ir.Node, affine: Affine, scope: Scope) -> Edit:
    """The edit by which `node` computes `affine` of what it computes now. Raises Refused."""
    return BEHIND[node.op_type](node, affine, scope)


def absorb_before(node: ir.Node, index: int, affine: Affine, scope: Scope) -> Edit:
    """The edit by which `node` computes from x what it now computes from `affine` of x, its input `index`.

    Raises:
        Refused: with the reason.
    """
    return BEFORE[node.op_type](node, index, affine, scope)
