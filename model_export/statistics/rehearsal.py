"""The rehearsal: before a network is measured in pieces, a few instances show that these give what the whole gives.

Two things are looked at. Whether a value is written over and then read again, by the versions that torch counts: that
does not depend on what the values are. And whether every BatchNorm is fed the same bits. What fails is run as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, fx, nn

from model_export.statistics.flow import Flow, Hear, Runner, trace, versions_of
from model_export.statistics.layers import Heard
from model_export.statistics.pieces import Pieces
from model_export.statistics.processes import Processes
from model_export.statistics.waves import Wave
from model_export.statistics.whole import Whole


class Route(Protocol):
    """A way to feed BatchNorms, wave by wave."""

    @property
    def waves(self) -> tuple[Wave, ...]:
        """In the order in which they have to be measured."""

    def feed(self, wave: Wave, index: int, batch: Tensor, hear: Hear) -> None:
        """Let the inputs of the wave's BatchNorms be heard for one batch; all that lie before it are frozen."""


def choose_route(
    network: nn.Module, batch: Tensor, heard: Heard, *, cache_bytes: int, processes: Processes | None = None
) -> Route:
    """In pieces, if `network` can be traced and these feed every BatchNorm the very bits of `heard`; else whole.

    All processes take the same route: where one can not go in pieces, none does.

    Args:
        network: in inference mode, and private: in-place activations become ordinary ones where pieces are run.
        batch: a few instances.
        heard: what each BatchNorm was fed when the network itself was run on them.
        cache_bytes: how much memory activations between two waves may take.
        processes: those that measure together; None: this one alone.
    """
    pieces = _try_pieces(network, batch, heard, cache_bytes=cache_bytes)
    everywhere = (processes or Processes()).gather(pieces is not None)
    if pieces is not None and all(everywhere):
        return pieces
    return Whole(network, [name for name, _ in heard])


def _try_pieces(network: nn.Module, batch: Tensor, heard: Heard, *, cache_bytes: int) -> Pieces | None:
    """The network as it was, if it can not be run in pieces."""
    in_place = [module for module in network.modules() if vars(module).get("inplace") is True]
    try:
        flow = trace(network)
        if reads_what_was_written_over(flow, batch.clone()):
            return None
        _set_in_place(in_place, on=False)  # `ReLU(inplace=True)` gives the same value without
        rehearsed = _rehearse(Pieces(flow, cache_bytes=cache_bytes), batch)
    except Exception:  # noqa: BLE001  # the network's own code runs here, in an order that it was not written for
        rehearsed = []
    if rehearsed and _same(_by_name(heard), _by_name(rehearsed)):
        return Pieces(flow, cache_bytes=cache_bytes)
    _set_in_place(in_place, on=True)
    return None


def _set_in_place(modules: Iterable[nn.Module], *, on: bool) -> None:
    for module in modules:
        vars(module)["inplace"] = on


def reads_what_was_written_over(flow: Flow, batch: Tensor) -> bool:
    """Run the flow in order, and see whether a node changes a value that a later node reads by another name.

    Pieces compute a value once and read it whenever they need it, so it must not change in between.
    """
    runner, versions = Runner(flow.module), dict[fx.Node, tuple[int, ...]]()
    nodes = list(flow.module.graph.nodes)
    nodes = nodes[: 1 + nodes.index(flow.applications[-1].node)]  # what follows feeds no BatchNorm
    stale: set[fx.Node] = set()
    with torch.no_grad():
        for node, value in runner.run_piece(nodes, {}, batch, keep=set(nodes)):
            if stale.intersection(node.all_input_nodes):
                return True
            stale |= {before for before, seen in versions.items() if versions_of(runner.env[before]) != seen}
            versions[node] = versions_of(value)
    return False


def _rehearse(pieces: Pieces, batch: Tensor) -> Heard:
    """Circular waves run twice, as they will."""
    heard: Heard = []
    with torch.no_grad():
        for wave in pieces.waves:
            if wave.circular:
                pieces.feed(wave, 0, batch.clone(), lambda *_: None)
            pieces.feed(wave, 0, batch.clone(), lambda name, values: heard.append((name, values.clone())))
    return heard


def _by_name(heard: Heard) -> dict[str, list[Tensor]]:
    """Between different BatchNorms the order may be another one; for each of them it is the same."""
    found: dict[str, list[Tensor]] = {}
    for name, values in heard:
        found.setdefault(name, []).append(values)
    return found


def _same(whole: dict[str, list[Tensor]], pieces: dict[str, list[Tensor]]) -> bool:
    return whole.keys() == pieces.keys() and all(
        len(values) == len(pieces[name]) and all(map(torch.equal, values, pieces[name]))
        for name, values in whole.items()
    )
