"""Finds what is to be folded: BatchNormalization nodes, and scales and shifts per channel that stand in their place.

A frozen BatchNorm may be written as Sub, Mul, Div and Add by constants. Such a chain is a subject if it both scales
and shifts, along one axis. Not ours is the tail of another normalisation (LayerNorm, GroupNorm, InstanceNorm, …).
"""

from __future__ import annotations

from dataclasses import dataclass

from model_export.affine import Affine
from model_export.fold.absorb.matmul import product_of
from model_export.fold.batchnorm import is_batchnorm
from model_export.fold.ledger import Refused, Subject
from model_export.fold.nodes import is_op, name_of
from model_export.fold.pointwise import SCALING, SHIFTING, batchnorm_affine, read_pointwise
from model_export.fold.scope import Scope
from model_export.ir import ir

NORMALISATIONS = (
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
)
LOOKED_THROUGH = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
MAX_CHAIN = 16


@dataclass(frozen=True)
class Candidate:
    """Neighbouring nodes that are one affine map together: a BatchNormalization, or a chain of arithmetic."""

    subject: Subject
    nodes: tuple[ir.Node, ...]
    index: int = 0

    @property
    def source(self) -> ir.Value | None:
        """The value that it normalises."""
        first = self.nodes[0]
        return first.inputs[self.index] if len(first.inputs) > self.index else None

    @property
    def output(self) -> ir.Value:
        """The normalised value."""
        return self.nodes[-1].outputs[0]

    def affine(self, scope: Scope) -> Affine:
        """The map of all of it. Raises Refused where it is none."""
        if self.subject.form == "BatchNormalization":
            return batchnorm_affine(self.nodes[0], scope)
        first, *rest = (read_pointwise(node, scope).affine for node in self.nodes)
        for affine in rest:
            first = first.then(affine)
        return first


def find_candidates(scope: Scope) -> list[Candidate]:
    """All that is to be folded in this scope, in the order of the data."""
    found: list[Candidate] = []
    seen: set[ir.Node] = set()
    for node in scope.graph:
        if is_batchnorm(node):
            found.append(Candidate(Subject(name_of(node)), (node,)))
        elif node not in seen and is_op(node, *SCALING, *SHIFTING):
            chain = _chain(node, scope)
            seen |= set(chain)
            if _stands_for_a_batchnorm(chain, scope):
                index = read_pointwise(chain[0], scope).index
                found.append(Candidate(Subject(name_of(chain[0]), "decomposed"), tuple(chain), index))
    return found


def _chain(node: ir.Node, scope: Scope) -> list[ir.Node]:
    """Arithmetic with constants, as long as each has one reader which is the next."""
    chain: list[ir.Node] = []
    following: ir.Node | None = node
    while following is not None and len(chain) < MAX_CHAIN and _is_arithmetic(following, scope):
        chain.append(following)
        following = scope.only_reader(following.outputs[0])
    return chain


def _is_arithmetic(node: ir.Node, scope: Scope) -> bool:
    if not is_op(node, *SCALING, *SHIFTING) or product_of(node, scope) is not None:
        return False
    try:
        read_pointwise(node, scope)
    except Refused:
        return False
    return True


def _stands_for_a_batchnorm(chain: list[ir.Node], scope: Scope) -> bool:
    if not any(is_op(node, *SCALING) for node in chain) or not any(is_op(node, *SHIFTING) for node in chain):
        return False
    first = read_pointwise(chain[0], scope)
    source = chain[0].inputs[first.index]
    reader = scope.only_reader(chain[-1].outputs[0])
    if source is None or _is_normalised(source) or is_batchnorm_output(source) or (reader and is_batchnorm(reader)):
        return False
    return _varies_along_one_axis([read_pointwise(node, scope).affine for node in chain])


def is_batchnorm_output(value: ir.Value) -> bool:
    """Whether a BatchNormalization makes the value: then arithmetic behind it goes with that BatchNorm."""
    producer = value.producer()
    return producer is not None and is_batchnorm(producer) and len(value.uses()) == 1


def _varies_along_one_axis(affines: list[Affine]) -> bool:
    scales = {axis for affine in affines for axis, length in enumerate(affine.scale.shape) if length != 1}
    axes = scales | {axis for affine in affines for axis, length in enumerate(affine.shift.shape) if length != 1}
    return len(scales) == 1 and axes == scales


def _is_normalised(value: ir.Value) -> bool:
    """Whether the value comes from another normalisation, whose own scale and shift the chain then is."""
    node = value.producer()
    for _ in range(MAX_CHAIN):
        if node is None or not is_op(node, *LOOKED_THROUGH):
            break
        node = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node is None:
        return False
    return node.op_type in NORMALISATIONS or is_op(node, "Div", "Mul")
