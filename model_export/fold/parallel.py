"""Merges what runs beside a layer into the layer: RepVGG's and MobileOne's branches become one convolution.

Where the results of branches that read the same value are summed, they are one linear map: a BatchNorm beside a layer
is a 1×1 kernel with S on its diagonal (Ding et al. 2021, RepVGG, section 3.3), and a small kernel beside a large one
is a large one with zeros around it, if the same input lies under both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_export.affine import Affine, Array, Linear
from model_export.fold.absorb import gemm, matmul
from model_export.fold.absorb.channels import along_channels
from model_export.fold.absorb.convolution import edit_convolution, read_weight
from model_export.fold.constants import Exact
from model_export.fold.edit import Edit
from model_export.fold.ledger import Refused
from model_export.fold.nodes import int_of, ints_of, is_op, name_of, string_of
from model_export.fold.scope import Scope
from model_export.ir import ir

MAX_TERMS = 16


@dataclass(frozen=True)
class Term:
    """A term of a sum of sums: its value, and the Adds from it up to the whole sum."""

    value: ir.Value
    adds: tuple[ir.Node, ...]


def absorb_in_parallel(source: ir.Value, output: ir.Value, affine: Affine, scope: Scope) -> Edit:
    """The edit by which a layer that reads `source` also computes `affine` of it, which was added to its result.

    Raises:
        Refused: there is no such layer, or it does not take it.
    """
    mine, others = _terms(output, scope)
    refusals = []
    for term in others:
        node = term.value.producer()
        try:
            layer = _layer_that_reads(node, source, scope)
            edit = BESIDE[layer.op_type](layer, affine, scope)
        except Refused as refused:
            refusals.append(str(refused))
        else:
            return edit.also(_without(mine, term))
    raise Refused(f"nothing beside it takes it ({'; '.join(refusals) or 'no sum with a layer'})")


def merge_convolutions(small: ir.Node, scope: Scope) -> tuple[Edit, ir.Node]:
    """The edit by which another convolution of the same value also does what `small` does; and that convolution.

    Raises:
        Refused: there is none that is added to it, or their kernels do not lie over one another.
    """
    mine, others = _terms(small.outputs[0], scope)
    for term in others:
        large = term.value.producer()
        if large is None or not is_op(large, "Conv") or large.inputs[0] is not small.inputs[0]:
            continue
        try:
            return _merged(small, large, scope).also(_without(mine, term)), large
        except Refused:
            continue
    raise Refused(f"no convolution beside {name_of(small)} covers it")


# --- the sum ---------------------------------------------------------------------------------------------------------


def _terms(value: ir.Value, scope: Scope) -> tuple[Term, list[Term]]:
    """`value` as a term of the largest sum that it is part of, and the other terms."""
    whole = value
    while (add := _only_add_that_reads(whole, scope)) is not None:
        whole = add.outputs[0]
    if whole is value:
        raise Refused("")  # it is not added to anything: no reason that would help anybody
    terms = list(_flatten(whole, (), scope))[:MAX_TERMS]
    mine = [term for term in terms if term.value is value]
    if len(mine) != 1:
        raise Refused(f"{value.name} is in a sum of too many terms")
    return mine[0], [term for term in terms if term.value is not value]


def _only_add_that_reads(value: ir.Value, scope: Scope) -> ir.Node | None:
    node = scope.only_reader(value)
    return node if node is not None and is_op(node, "Add") and _is_plain_sum(node, scope) else None


def _is_plain_sum(add: ir.Node, scope: Scope) -> bool:
    """Whether both terms have the sum's shape: nothing is repeated."""
    shapes = [scope.shapes.of(value) for value in (*add.inputs, *add.outputs) if value is not None]
    known = [shape for shape in shapes if shape is not None]
    same_rank = len({len(shape) for shape in known}) == 1
    return len(known) == 3 and same_rank and all(_agree(lengths) for lengths in zip(*known, strict=True))


def _agree(lengths: tuple[int | str | None, ...]) -> bool:
    return len({length for length in lengths if isinstance(length, int)}) <= 1 and not (
        1 in lengths and any(not isinstance(length, int) for length in lengths)
    )


def _flatten(value: ir.Value, adds: tuple[ir.Node, ...], scope: Scope) -> Iterator[Term]:
    node = value.producer()
    is_sum = node is not None and is_op(node, "Add") and node.graph is scope.graph
    if node is None or not is_sum or len(adds) > MAX_TERMS or not _is_plain_sum(node, scope):
        yield Term(value, adds)
        return
    if adds and (len(value.uses()) != 1 or value.is_graph_output()):
        yield Term(value, adds)
        return
    for part in node.inputs:
        if part is not None:
            yield from _flatten(part, (node, *adds), scope)


def _without(gone: Term, taker: Term) -> Edit:
    """Take `gone` out of the sum; the partial sums below the Add that both come to change."""
    add = gone.adds[0]
    shared = next(node for node in taker.adds if node in gone.adds)
    between = [*taker.adds[: taker.adds.index(shared)], *gone.adds[1 : max(gone.adds.index(shared), 1)]]
    index = 1 if add.inputs[0] is gone.value else 0
    changed = (taker.value, *(node.outputs[0] for node in between))
    return Edit(bypassed={add: index}, changed=changed, path=tuple(dict.fromkeys((*between, shared))))


# --- the layer -------------------------------------------------------------------------------------------------------


def _layer_that_reads(node: ir.Node | None, source: ir.Value, scope: Scope) -> ir.Node:
    """The layer that makes a term from `source`, and whose result only the sum reads."""
    layer = node if node is None else matmul.product_of(node, scope) or node
    if layer is None or not is_op(layer, *BESIDE) or source not in _data_of(layer, scope):
        raise Refused(f"{name_of(node) if node else 'an input'} is no layer that reads {source.name}")
    scope.refuse_other_readers(layer.outputs[0])
    return layer


def _data_of(layer: ir.Node, scope: Scope) -> list[ir.Value | None]:
    """What the layer reads as its data: a product, on the side where its constant is not."""
    if is_op(layer, "MatMul"):
        return [value for value in layer.inputs if not scope.constants.is_constant(value)]
    return list(layer.inputs[:1])


def _beside_gemm(node: ir.Node, affine: Affine, scope: Scope) -> Edit:
    if int_of(node, "transA", 0):
        raise Refused(f"{name_of(node)} transposes its input")
    return gemm.edit_gemm(node, scope, lambda linear: _plus_diagonal(linear, affine, node))


def _plus_diagonal(linear: Linear, affine: Affine, node: ir.Node) -> Linear:
    if linear.num_inputs != linear.num_outputs:
        raise Refused(f"{name_of(node)} has other outputs than inputs")
    channels = along_channels(affine, axis=1, num_channels=linear.num_outputs, node=node)
    return Linear(linear.weight + np.diag(channels.scale), linear.bias + channels.shift)


def _beside_convolution(node: ir.Node, affine: Affine, scope: Scope) -> Edit:
    weight, groups = read_weight(node, scope), int_of(node, "group", 1)
    num_outputs, per_group = weight.shape[0], weight.shape[1]
    if num_outputs != per_group * groups or any(step != 1 for step in ints_of(node, "strides") or ()):
        raise Refused(f"{name_of(node)} does not give one output for each place and channel of its input")
    tap = _tap_of_the_same_place(node, weight)
    channels = along_channels(affine, axis=1, num_channels=num_outputs, node=node)
    rows = np.arange(num_outputs)
    places: tuple[Any, ...] = (rows, rows % per_group, *tap)

    def with_identity() -> Array:
        values = weight.compute().copy()
        values[places] += channels.scale
        return values

    bias = gemm.read_bias(node, num_outputs, scope) + channels.shift
    return edit_convolution(node, Exact(with_identity, weight.shape, weight.dtype), bias)


def _tap_of_the_same_place(node: ir.Node, weight: Exact) -> tuple[int, ...]:
    """The tap of the kernel under which the input lies at the place of the output."""
    reach = _reach(node, weight)
    if any(sum(pads) != (size - 1) * step for size, step, pads in reach):
        raise Refused(f"{name_of(node)} does not keep the size of its input")
    if any(pads[0] % step for _, step, pads in reach):
        raise Refused(f"no tap of {name_of(node)} lies on the place of its output")
    return tuple(pads[0] // step for _, step, pads in reach)


def _reach(node: ir.Node, weight: Exact) -> list[tuple[int, int, tuple[int, int]]]:
    """Along each spatial axis: the size of the kernel, its dilation, and the padding in front and behind."""
    if string_of(node, "auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        raise Refused(f"{name_of(node)} pads automatically")
    kernel = weight.shape[2:]
    pads = ints_of(node, "pads") or (0,) * (2 * len(kernel))
    if string_of(node, "auto_pad", "NOTSET") == "VALID":
        pads = (0,) * (2 * len(kernel))
    dilations = ints_of(node, "dilations") or (1,) * len(kernel)
    around = zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)
    return list(zip(kernel, dilations, around, strict=True))


# --- convolution into convolution ------------------------------------------------------------------------------------


def _merged(small: ir.Node, large: ir.Node, scope: Scope) -> Edit:
    scope.refuse_other_readers(large.outputs[0])
    weights = read_weight(small, scope), read_weight(large, scope)
    groups = int_of(small, "group", 1), int_of(large, "group", 1)
    strides = [ints_of(node, "strides") or (1,) * (len(weights[0].shape) - 2) for node in (small, large)]
    if groups[0] != groups[1] or weights[0].shape[:2] != weights[1].shape[:2] or strides[0] != strides[1]:
        raise Refused(f"{name_of(small)} and {name_of(large)} differ in more than their kernels")
    taps = np.ix_(*_taps_over(_reach(small, weights[0]), _reach(large, weights[1]), large))
    places: tuple[Any, ...] = (slice(None), slice(None), *taps)

    def summed() -> Array:
        values = weights[1].compute().copy()
        values[places] += weights[0].compute()
        return values

    bias = sum(gemm.read_bias(node, weights[1].shape[0], scope) for node in (small, large))
    exact = Exact(summed, weights[1].shape, weights[1].dtype)
    return edit_convolution(large, exact, np.asarray(bias)).also(Edit(path=(small,)))


def _taps_over(
    small: list[tuple[int, int, tuple[int, int]]], large: list[tuple[int, int, tuple[int, int]]], node: ir.Node
) -> list[list[int]]:
    """Along each axis, which tap of the large kernel lies over each tap of the small one."""
    found = []
    for (size, step, pads), (large_size, large_step, large_pads) in zip(small, large, strict=True):
        places = [(k * step - pads[0] + large_pads[0]) for k in range(size)]
        if sum(pads) - step * (size - 1) != sum(large_pads) - large_step * (large_size - 1):
            raise Refused(f"{name_of(node)} gives a result of another size")
        if any(place % large_step or not 0 <= place // large_step < large_size for place in places):
            raise Refused(f"the kernel of {name_of(node)} does not cover it")
        found.append([place // large_step for place in places])
    return found


BESIDE = {"Conv": _beside_convolution, "Gemm": _beside_gemm, "MatMul": matmul.add_diagonal}
