"""Waves: which BatchNorms can be measured in the same pass, because none of them lies in front of another.

The inputs of a BatchNorm depend on those before it, so it is measured behind them, once they are frozen. That makes a
graph between BatchNorms; its strongly connected components are ordered, and those of equal depth form one wave. Two
branches of a network are measured together, and a network of one chain has as many waves as BatchNorms.

A layer that is applied twice in a row lies in front of itself: the second input depends on what the first one is
normalised with. Its statistics are those that agree with themselves, and only such a wave is *circular*.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import networkx as nx


@dataclass(frozen=True)
class Wave:
    """BatchNorms by name, in the order of their first use, that are measured in one pass.

    `circular` are those of them whose inputs depend, through other applications, on their own statistics.
    """

    names: tuple[str, ...]
    circular: frozenset[str] = frozenset()


def plan_waves(dependencies: Mapping[str, Collection[str]]) -> tuple[Wave, ...]:
    """Order BatchNorms into as few waves as possible.

    Args:
        dependencies: each BatchNorm, in the order of their first use, and those that its inputs depend on.
    """
    graph = nx.DiGraph((before, name) for name, befores in dependencies.items() for before in befores)
    graph.add_nodes_from(dependencies)
    components = nx.condensation(graph)
    generations = nx.topological_generations(components)
    groups = ([components.nodes[number]["members"] for number in generation] for generation in generations)
    return tuple(_wave(members, dependencies) for members in groups)


def _wave(groups: list[set[str]], dependencies: Mapping[str, Collection[str]]) -> Wave:
    circular = {name for members in groups for name in members if len(members) > 1 or name in dependencies[name]}
    together = set().union(*groups)
    return Wave(names=tuple(name for name in dependencies if name in together), circular=frozenset(circular))
