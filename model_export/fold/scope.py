"""One place where names and readers are of one kind: the main graph, the body of a control-flow node, or a function.

A fold never reaches from one scope into another: a body runs when and as often as its node likes, and a name in there
is its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model_export.fold.constants import Constants
from model_export.fold.ledger import Refused
from model_export.fold.nodes import name_of, names_of, sees_only_the_shape
from model_export.fold.shapes import Shapes
from model_export.ir import ir


@dataclass(frozen=True)
class Scope:
    """A graph with what is known about it: its constants, and the shapes that are proved.

    `place` is the position of each node in the order of the data. `reserved` are nodes that must stay, and why.
    `is_function`: it can hold no initializers.
    """

    graph: ir.Graph
    opset: int
    shapes: Shapes
    constants: Constants
    place: dict[ir.Node, float] = field(default_factory=dict)
    reserved: dict[ir.Node, str] = field(default_factory=dict)
    is_function: bool = False

    def readers(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        """The nodes that read the elements of the value, each with the index of its input.

        Raises:
            Refused: it is an output of the model, or read in the body of an If, Loop or Scan.
        """
        if value.is_graph_output():
            raise Refused(f"{value.name} is an output of {self._whose}, and would change")
        uses = [(node, index) for node, index in value.uses() if not sees_only_the_shape(node, index)]
        for node, _ in uses:
            if node.graph is not self.graph:
                name = name_of(node)
                raise Refused(f"{value.name} is read by {name} in the body of a control-flow node", by=(name,))
        return uses

    def only_reader(self, value: ir.Value) -> ir.Node | None:
        """The one node that reads the value, where nobody else sees it."""
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output() or uses[0].node.graph is not self.graph:
            return None
        return uses[0].node

    def refuse_other_readers(self, value: ir.Value) -> None:
        """Make sure that only one node reads the value.

        Raises:
            Refused: a change of the value would be seen by others.
        """
        readers = [node for node, _ in self.readers(value)]
        if len(readers) > 1:
            names = ", ".join(name_of(node) for node in readers)
            raise Refused(
                f"{value.name} has {len(readers)} readers ({names}), and a fold would change it for all",
                by=names_of(readers),
            )

    def rank(self, value: ir.Value) -> int:
        """The number of axes of the value.

        Raises:
            Refused: it is not proved.
        """
        rank = self.shapes.rank(value)
        if rank is None:
            raise Refused(f"the number of axes of {value.name} is not known")
        return rank

    def lengths(self, value: ir.Value) -> tuple[int | str | None, ...]:
        """The length of each axis of the value; the name of a symbolic one, None where it is not proved."""
        return self.shapes.of(value) or (None,) * self.rank(value)

    @property
    def _whose(self) -> str:
        return "the model" if not self.is_function else "the function"


def scopes_of(model: ir.Model, shapes: Shapes) -> list[Scope]:
    """The main graph, then the bodies of its nodes, then the functions."""
    opset = model.opset_imports.get("", 0)
    graphs = [_scope(graph, opset, shapes) for graph in (model.graph, *model.graph.subgraphs())]
    functions = [
        _scope(graph, function.opset_imports.get("", opset), shapes, is_function=graph is function.graph)
        for function in model.functions.values()
        for graph in (function.graph, *function.graph.subgraphs())
    ]
    return graphs + functions


def _scope(graph: ir.Graph, opset: int, shapes: Shapes, *, is_function: bool = False) -> Scope:
    place: dict[ir.Node, float] = {node: float(index) for index, node in enumerate(graph)}
    return Scope(graph, opset, shapes, Constants(opset, shapes.dtypes), place, is_function=is_function)
