"""Writes two roundabout spellings plainly, next to a BatchNorm only, so that the rules need not know them.

    Unsqueeze, Concat, ReduceSum     torch.stack(branches).sum(0), as some write MobileOne: a sum of the branches
    SplitToSequence, SequenceAt      torch.split as torch's exporter first writes it: a Split

Each gives the same values, bit for bit but for the order of a sum.
"""

from __future__ import annotations

from collections.abc import Iterator

from model_export.fold.batchnorm import is_batchnorm
from model_export.fold.constants import Constants
from model_export.fold.ledger import Refused
from model_export.fold.nodes import input_of, int_of, ints_of, is_op, name_of
from model_export.ir import ir

FIRST_OPSET = 13  # from here on, axes and sizes are inputs


def respell(model: ir.Model) -> None:
    """Rewrite what stands beside a BatchNorm in the main graph, in place."""
    opset = model.opset_imports.get("", 0)
    if opset < FIRST_OPSET:
        return
    constants = Constants(opset)
    for node in list(model.graph):
        if is_op(node, "ReduceSum"):
            _respell_stack(model.graph, node, constants)
        elif is_op(node, "SplitToSequence"):
            _respell_split(model.graph, node, constants)


# --- stack and sum ---------------------------------------------------------------------------------------------------


def _respell_stack(graph: ir.Graph, reduce: ir.Node, constants: Constants) -> None:
    branches = _stacked(reduce, constants)
    if len(branches) < 2 or not any(_is_batchnorms(value) for value in branches):
        return
    value, output, stack = branches[0], reduce.outputs[0], input_of(reduce, 0)
    for number, branch in enumerate(branches[1:], start=1):
        add = ir.Node("", "Add", [value, branch], name=f"{name_of(reduce)}.sum{number}")
        value = add.outputs[0]
        value.name, value.type = f"{output.name}.sum{number}", output.type
        graph.insert_before(reduce, add)
    _take_over(graph, reduce, output, value)
    concat = stack.producer() if stack is not None else None
    unsqueezes = [each.producer() for each in concat.inputs if each is not None] if concat is not None else []
    graph.remove([node for node in (concat, *unsqueezes) if node is not None], safe=True)


def _stacked(reduce: ir.Node, constants: Constants) -> list[ir.Value]:
    """The values that are stacked along a new axis and summed over it; none where it is something else."""
    concat = _only_reader_of(input_of(reduce, 0))
    axes = _whole_numbers(reduce, 1, constants)
    if concat is None or not is_op(concat, "Concat") or len(axes) != 1 or int_of(reduce, "keepdims", 1):
        return []
    if int_of(concat, "axis", 0) != axes[0]:
        return []
    unsqueezes = [_only_reader_of(value) for value in concat.inputs]
    if not all(node is not None and is_op(node, "Unsqueeze") for node in unsqueezes):
        return []
    if any(_whole_numbers(node, 1, constants) != axes for node in unsqueezes if node is not None):
        return []
    values = [node.inputs[0] for node in unsqueezes if node is not None]
    return [value for value in values if value is not None]


def _only_reader_of(value: ir.Value | None) -> ir.Node | None:
    """What makes a value that one node reads and nobody else sees."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return value.producer()


def _is_batchnorms(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and is_batchnorm(producer)


def _take_over(graph: ir.Graph, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    """Let `new` stand for `old`, name and all, and let the node go."""
    new.name, new.type, new.shape = old.name, old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


# --- split -----------------------------------------------------------------------------------------------------------


def _respell_split(graph: ir.Graph, split: ir.Node, constants: Constants) -> None:
    parts = _parts(split, constants)
    sizes = _whole_numbers(split, 1, constants)
    if not parts or not sizes or not any(map(_leads_to_batchnorm, parts)):
        return
    value, lengths = split.inputs[0], split.inputs[1]
    plain = ir.Node(
        "", "Split", [value, lengths], [ir.AttrInt64("axis", int_of(split, "axis", 0))], num_outputs=len(sizes)
    )
    plain.name = name_of(split)
    for number, output in enumerate(plain.outputs):
        output.name = f"{split.outputs[0].name}.{number}"
    graph.insert_before(split, plain)
    for part, position in parts.items():
        _take_part(graph, part, plain.outputs[position])
    graph.remove(split, safe=True)


def _parts(split: ir.Node, constants: Constants) -> dict[ir.Node, int]:
    """Each SequenceAt that reads the sequence, with its position; none where anything else reads it."""
    sequence, num_parts = split.outputs[0], len(_whole_numbers(split, 1, constants))
    if sequence.is_graph_output() or not int_of(split, "keepdims", 1):
        return {}
    parts = {}
    for node, index in sequence.uses():
        positions = _whole_numbers(node, 1, constants) if is_op(node, "SequenceAt") and index == 0 else ()
        if len(positions) != 1 or not -num_parts <= positions[0] < num_parts or node.graph is not split.graph:
            return {}
        parts[node] = positions[0] % num_parts
    return parts if len(set(parts.values())) == len(parts) else {}


def _take_part(graph: ir.Graph, part: ir.Node, output: ir.Value) -> None:
    _take_over(graph, part, part.outputs[0], output)


def _leads_to_batchnorm(part: ir.Node) -> bool:
    return any(is_batchnorm(node) for node in _readers_past_identities(part.outputs[0]))


def _readers_past_identities(value: ir.Value) -> Iterator[ir.Node]:
    for node, _ in value.uses():
        if is_op(node, "Identity"):
            yield from _readers_past_identities(node.outputs[0])
        else:
            yield node


def _whole_numbers(node: ir.Node, index: int, constants: Constants) -> tuple[int, ...]:
    """A constant input of whole numbers, or the attribute `axes` that it was before; empty where it is not constant."""
    if input_of(node, index) is None:
        return ints_of(node, "axes") or ()
    try:
        return constants.ints(node.inputs[index], "an input")
    except Refused:
        return ()
