"""The flow of a network: the way from its input to its BatchNorms, as a graph of which any part can be run alone.

torch.fx draws it. Any module without a BatchNorm inside is one node, whatever its code does, so that only the code
around BatchNorms has to be traceable: no branch on values, no call that leaves torch. What can not be traced is no
error: it is measured by running the network as a whole (`whole.py`), which takes longer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from model_export.statistics.layers import BatchNorm, named_batchnorms

Values = dict[fx.Node, Any]
Hear = Callable[[str, Tensor], None]


class Untraceable(Exception):
    """A network that is to be run as a whole. It never reaches a user."""


@dataclass(frozen=True)
class Application:
    """One use of a BatchNorm: its name, the node that applies it, and the node that gives its input."""

    name: str
    node: fx.Node
    input: fx.Node


@dataclass(frozen=True, eq=False)
class Flow:
    """A traced network, which it shares its modules with: statistics that these are given hold here too."""

    module: fx.GraphModule
    applications: tuple[Application, ...]

    @cached_property
    def upstream(self) -> dict[fx.Node, frozenset[str]]:
        """The BatchNorms that each node's value depends on, the one that it applies included."""
        applied = {application.node: {application.name} for application in self.applications}
        found: dict[fx.Node, frozenset[str]] = {}
        for node in self.module.graph.nodes:
            found[node] = frozenset(applied.get(node, ())).union(*(found[before] for before in node.all_input_nodes))
        return found

    @property
    def dependencies(self) -> dict[str, set[str]]:
        """Each BatchNorm, in the order of first use, and those that one of its inputs depends on."""
        found: dict[str, set[str]] = {}
        for application in self.applications:
            found.setdefault(application.name, set()).update(self.upstream[application.input])
        return found

    def between(self, known: Collection[fx.Node], wanted: Iterable[fx.Node]) -> list[fx.Node]:
        """The nodes to run, in order, so that the values of `wanted` follow from those that are known."""
        needed, ahead = set[fx.Node](), [node for node in wanted if node not in known]
        while ahead:
            node = ahead.pop()
            if node not in needed:
                needed.add(node)
                ahead.extend(before for before in node.all_input_nodes if before not in known)
        return [node for node in self.module.graph.nodes if node in needed]


def trace(network: nn.Module) -> Flow:
    """Draw the flow of `network`, which must be in inference mode.

    Raises:
        Untraceable: its code can not be drawn.
    """
    if isinstance(network, BatchNorm):
        raise Untraceable
    try:
        graph = _Tracer().trace(network, concrete_args=_defaults(network))
        module = fx.GraphModule(network, graph)
    except Exception as err:  # the network's own code runs here, on what are no tensors
        raise Untraceable from err
    return Flow(module=module, applications=_applications(module))


class _Tracer(fx.Tracer):
    """Looks only into modules that hold a BatchNorm."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        del module_qualified_name
        return isinstance(m, BatchNorm) or not named_batchnorms(m)


def _defaults(network: nn.Module) -> dict[str, Any]:
    """What all arguments but the first are, when a network is called with a batch alone."""
    parameters = list(inspect.signature(network.forward).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def _applications(module: fx.GraphModule) -> tuple[Application, ...]:
    batchnorms = named_batchnorms(module)
    names = {id(batchnorm): name for name, batchnorm in batchnorms.items()}
    calls = [node for node in module.graph.nodes if node.op == "call_module"]
    applied = ((node, names.get(id(module.get_submodule(str(node.target))))) for node in calls)
    return tuple(Application(name, node, _input(node)) for node, name in applied if name is not None)


def _input(node: fx.Node) -> fx.Node:
    given = node.args[0] if node.args else node.kwargs["input"]
    if not isinstance(given, fx.Node):
        raise Untraceable
    return given


class Runner(fx.Interpreter):
    """Runs pieces of a flow. What no later node of the piece needs is let go at once, as in an ordinary forward."""

    def run_piece(
        self, nodes: Sequence[fx.Node], known: Mapping[fx.Node, Any], batch: Tensor, *, keep: Collection[fx.Node]
    ) -> Iterator[tuple[fx.Node, Any]]:
        """Yield what is known, then what each of `nodes` gives, in order; in the end `env` holds `keep` alone."""
        self.env = dict(known)
        yield from known.items()
        dies = _deaths(nodes, keep)
        for node in nodes:
            self.env[node] = batch if node.op == "placeholder" else self.run_node(node)
            yield node, self.env[node]
            for dead in dies.get(node, ()):
                self.env.pop(dead, None)
        self.env = {node: value for node, value in self.env.items() if node in keep}


def versions_of(value: Any) -> tuple[int, ...]:
    """How often each tensor in a value has been written to; a view counts with what it looks at."""
    return tuple(leaf._version for leaf in tree_leaves(value) if isinstance(leaf, Tensor))  # noqa: SLF001


def _deaths(nodes: Sequence[fx.Node], keep: Collection[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """For each node of a piece the values that are used there for the last time."""
    last_use = {before: node for node in nodes for before in (node, *node.all_input_nodes)}
    dies: dict[fx.Node, list[fx.Node]] = {}
    for before, node in last_use.items():
        if before not in keep:
            dies.setdefault(node, []).append(before)
    return dies
