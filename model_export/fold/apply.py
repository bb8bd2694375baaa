"""Carries out an edit on the graph it was made for, and decides nothing.

Names: a value that holds something else afterwards gets another name, and one that takes over what another held takes
that one's name. So a name that is in the model before and after names the same tensor, and two models can be compared.
A weight keeps its name where nobody else reads the old one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from model_export.fold.batchnorm import is_batchnorm
from model_export.fold.constants import Exact
from model_export.fold.edit import Edit
from model_export.fold.nodes import input_of, name_of
from model_export.fold.scope import Scope
from model_export.ir import ir


class Names:
    """Every name of a model, so that none is given twice, in whatever graph."""

    def __init__(self, model: ir.Model) -> None:
        self._taken = set(_all_names(model))

    def new(self, wanted: str) -> str:
        """`wanted`, or what is free and closest to it; it is taken from now on."""
        candidates = itertools.chain([wanted], (f"{wanted}.folded{count or ''}" for count in itertools.count()))
        free = next(candidate for candidate in candidates if candidate not in self._taken)
        self._taken.add(free)
        return free


def apply_edit(edit: Edit, scope: Scope, names: Names) -> dict[ir.Value, ir.Value]:
    """Change the graph of `scope` as the edit says; give the shifted value for each that a constant was added to."""
    orphans = [value for node in edit.nodes for value in node.inputs]
    for node, dropped in edit.dropped.items():
        for name in dropped:
            node.attributes.pop(name, None)
    for (node, index), exact in edit.constants.items():
        _set_constant(scope, node, index, exact, names)
    moved = {value: _insert_add(scope, value, exact, names) for value, exact in edit.shifts.items()}
    changed = {moved.get(value, value) for value in edit.changed}
    renamed: set[ir.Value] = set()
    for node in sorted(edit.bypassed, key=lambda node: scope.place[node]):
        renamed |= _bypass(scope, node, edit.bypassed[node], changed)
    _remove_unread(scope, [*orphans, *(value for node in edit.path for value in node.outputs)], edit.nodes)
    scope.constants.forget(edit.nodes)
    for value in changed - renamed:
        if not value.is_graph_output() and value.producer() is not None and value.producer().graph is scope.graph:  # type: ignore[union-attr]
            value.name = names.new(f"{value.name}.folded")
    return moved


def _set_constant(scope: Scope, node: ir.Node, index: int, exact: Exact, names: Names) -> None:
    old = input_of(node, index)
    wanted = str(old.name) if old is not None else f"{name_of(node)}.{_SLOTS.get(index, 'constant')}"
    is_last_use = old is not None and len(old.uses()) == 1 and not old.is_graph_output()
    new = _new_constant(scope, exact, names.new(wanted))
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new)
    if old is not None and is_last_use and _remove(scope, old) and new.is_initializer():
        scope.graph.initializers.pop(str(new.name))
        new.name = wanted
        new.const_value.name = wanted  # type: ignore[union-attr]
        scope.graph.register_initializer(new)


def _new_constant(scope: Scope, exact: Exact, name: str) -> ir.Value:
    """An initializer, or in a function, which has none, the output of a Constant."""
    tensor = ir.LazyTensor(
        lambda: ir.Tensor(exact.rounded(), dtype=exact.dtype, name=name),
        dtype=exact.dtype,
        shape=ir.Shape(exact.shape),
        name=name,
    )
    if scope.is_function:
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.Tensor(exact.rounded(), dtype=exact.dtype))])
        scope.graph.insert_before(scope.graph[0], node)
        scope.place[node] = -1.0
        value = node.outputs[0]
        value.name = name
    else:
        value = ir.Value(name=name, shape=ir.Shape(exact.shape), type=ir.TensorType(exact.dtype), const_value=tensor)
        scope.graph.register_initializer(value)
    scope.constants.exact[value] = exact
    return value


def _insert_add(scope: Scope, value: ir.Value, exact: Exact, names: Names) -> ir.Value:
    """Put an Add behind the value that takes over its readers, and its name."""
    producer = value.producer()
    if producer is None:
        raise ValueError(f"{value.name} is made by no node")
    add = ir.Node("", "Add", [value, None], name=names.new(f"{name_of(producer)}.shift"))
    shifted = add.outputs[0]
    shifted.shape, shifted.type, shifted.name = value.shape, value.type, value.name
    scope.shapes.copy(value, shifted)
    value.name = names.new(f"{value.name}.unshifted")
    scope.graph.insert_after(producer, add)
    scope.place[add] = scope.place[producer] + 0.5
    value.replace_all_uses_with(shifted, replace_graph_outputs=True)
    add.replace_input_with(0, value)
    add.replace_input_with(1, _new_constant(scope, exact, names.new(f"{name_of(producer)}.bias")))
    return shifted


def _bypass(scope: Scope, node: ir.Node, index: int, changed: set[ir.Value]) -> set[ir.Value]:
    """Let the readers of the node read one of its inputs; give back that input where it has taken over the name.

    It does so where it now holds what the node's output held; that is not so where the output is changed as well.
    """
    source, output = node.inputs[index], node.outputs[0]
    if source is None:
        raise ValueError(f"{name_of(node)} has no input {index}")
    was_output, name = output.is_graph_output(), output.name
    others = [value for value in node.inputs if value is not source]
    output.replace_all_uses_with(source, replace_graph_outputs=True)
    scope.graph.remove(node, safe=True)
    _remove_unread(scope, others)
    if output in changed or (source not in changed and not was_output):
        return set()
    source.name, source.type, source.shape = name, output.type, output.shape
    return {source}


def _remove_unread(scope: Scope, values: Iterable[ir.Value | None], folded: tuple[ir.Node, ...] = ()) -> None:
    """Remove what made these values, where nobody reads them any more, and what only that read.

    A BatchNorm goes only when it is among those `folded`: one that made a constant is accounted for on its own.
    """
    waiting = [value for value in values if value is not None]
    while waiting:
        value = waiting.pop()
        producer = value.producer()
        if value.uses() or value.is_graph_output() or (is_batchnorm(producer) and producer not in folded):
            continue
        if producer is None:
            if value.is_initializer():
                _remove(scope, value)
        elif producer.graph is scope.graph and not any(o.uses() or o.is_graph_output() for o in producer.outputs):
            waiting += [source for source in producer.inputs if source is not None]
            scope.graph.remove(producer, safe=True)


def _remove(scope: Scope, value: ir.Value) -> bool:
    """Remove an initializer that nobody reads, from whichever graph holds it; say whether it is gone."""
    if not value.is_initializer():
        _remove_unread(scope, [value])
        return False
    graph = value.graph
    if value.uses() or value.is_graph_output() or value.is_graph_input() or graph is None:
        return False
    return graph.initializers.pop(str(value.name), None) is not None


def _all_names(model: ir.Model) -> Iterable[str]:
    functions = [graph for f in model.functions.values() for graph in (f.graph, *f.graph.subgraphs())]
    for graph in (*model.graphs(), *functions):
        for value in (*graph.inputs, *graph.initializers.values()):
            yield str(value.name)
        for node in graph:
            yield from (str(name) for name in (node.name, *(output.name for output in node.outputs)) if name)


_SLOTS = {1: "weight", 2: "bias", 3: "bias"}
