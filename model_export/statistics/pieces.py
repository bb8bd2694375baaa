"""Feeding BatchNorms piece by piece: each pass goes on where the last one stopped, as far as memory allows.

When a wave has been measured, what the network computed in front of it stays as it is; only values that a later wave
still reads are kept, batch by batch, up to a limit. A batch that does not fit is computed from its start again. With
all batches kept, every node in front of the last BatchNorm runs once: exact statistics cost one forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from model_export.statistics.flow import Application, Flow, Hear, Runner, Values, versions_of
from model_export.statistics.waves import Wave, plan_waves


@dataclass(frozen=True)
class Piece:
    """What one wave runs, given what is known: nodes in order, who hears their values, and which values are kept."""

    nodes: tuple[fx.Node, ...]
    heard_by: dict[fx.Node, tuple[str, ...]]
    keep: frozenset[fx.Node]


@dataclass(frozen=True, eq=False)
class Kept:
    """Values of one batch, and how often each had been written to when it was computed."""

    values: Values
    versions: dict[fx.Node, tuple[int, ...]]

    @property
    def is_untouched(self) -> bool:
        """Whether they are still what was computed."""
        return all(versions_of(value) == self.versions[node] for node, value in self.values.items())

    @cached_property
    def num_bytes(self) -> int:
        """What they take in memory."""
        return _count_bytes(self.values)


class Pieces:
    """A traced network that feeds one wave of BatchNorms at a time, keeping up to `cache_bytes` of activations."""

    def __init__(self, flow: Flow, *, cache_bytes: int) -> None:
        self.waves = plan_waves(flow.dependencies)
        self._flow = flow
        self._runner = Runner(flow.module)
        self._pieces: dict[tuple[Wave, frozenset[fx.Node]], Piece] = {}
        self._kept: dict[int, Kept] = {}
        self._cache_bytes = cache_bytes

    def feed(self, wave: Wave, index: int, batch: Tensor, hear: Hear) -> None:
        """Let `hear(name, input)` be called for each application of the wave's BatchNorms; all before it are frozen."""
        known = self._take(index)
        piece = self._piece(wave, frozenset(known))
        versions = {}
        for node, value in self._runner.run_piece(piece.nodes, known, batch, keep=piece.keep):
            versions[node] = versions_of(value)
            for name in piece.heard_by.get(node, ()):
                hear(name, value)
        values = self._runner.env
        self._keep(index, Kept(values, {node: versions[node] for node in values}))

    def _take(self, index: int) -> Values:
        """What is known of a batch; nothing if somebody has written over it, a layer over its own buffer say."""
        kept = self._kept.pop(index, None)
        return kept.values if kept is not None and kept.is_untouched else {}

    def _piece(self, wave: Wave, known: frozenset[fx.Node]) -> Piece:
        if (wave, known) not in self._pieces:
            self._pieces[wave, known] = self._plan(wave, known)
        return self._pieces[wave, known]

    def _plan(self, wave: Wave, known: frozenset[fx.Node]) -> Piece:
        heard_by: dict[fx.Node, tuple[str, ...]] = {}
        for application in self._of([wave]):
            heard_by[application.input] = (*heard_by.get(application.input, ()), application.name)
        nodes = tuple(self._flow.between(known, heard_by))
        return Piece(nodes=nodes, heard_by=heard_by, keep=self._worth_keeping(wave, known.union(nodes)))

    def _of(self, waves: Iterable[Wave]) -> list[Application]:
        names = {name for wave in waves for name in wave.names}
        return [application for application in self._flow.applications if application.name in names]

    def _worth_keeping(self, wave: Wave, computed: frozenset[fx.Node]) -> frozenset[fx.Node]:
        """The nodes whose values will not change any more and are read on the way to a wave that is still to come.

        A circular wave is fed more than once, so what leads to it counts too.
        """
        number = self.waves.index(wave)
        frozen = {name for earlier in self.waves[:number] for name in earlier.names}
        settled = {node for node in computed if self._flow.upstream[node] <= frozen and node.op != "placeholder"}
        ahead = {application.input for application in self._of(self.waves[number + (not wave.circular) :])}
        read = {before for node in self._flow.between(settled, ahead) for before in node.all_input_nodes}
        return frozenset(settled & (read | ahead))

    def _keep(self, index: int, kept: Kept) -> None:
        if sum(other.num_bytes for other in self._kept.values()) + kept.num_bytes <= self._cache_bytes:
            self._kept[index] = kept


def _count_bytes(values: Values) -> int:
    """What the tensors among `values` take, each storage once: a view holds all that it looks at."""
    tensors = [leaf for leaf in tree_leaves(list(values.values())) if isinstance(leaf, torch.Tensor)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
