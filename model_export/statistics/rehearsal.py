"""The rehearsal: before a network is measured in pieces, two instances show that these give what the whole gives."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from model_export.statistics.flow import Hear, trace
from model_export.statistics.layers import Heard
from model_export.statistics.pieces import Pieces
from model_export.statistics.waves import Wave
from model_export.statistics.whole import Whole


class Route(Protocol):
    """A way to feed BatchNorms, wave by wave."""

    @property
    def waves(self) -> tuple[Wave, ...]:
        """In the order in which they have to be measured."""

    def feed(self, wave: Wave, index: int, batch: Tensor, hear: Hear) -> None:
        """Let the inputs of the wave's BatchNorms be heard for one batch; all that lie before it are frozen."""


def choose_route(network: nn.Module, batch: Tensor, heard: Heard, *, cache_bytes: int) -> Route:
    """In pieces, if `network` can be traced and these feed every BatchNorm the very bits of `heard`; else whole.

    Args:
        network: in inference mode, and private: in-place activations become ordinary ones.
        batch: a few instances.
        heard: what each BatchNorm was fed when the network itself was run on them.
        cache_bytes: how much memory activations between two waves may take.
    """
    try:
        flow = trace(network)
        rehearsed = _rehearse(Pieces(flow, cache_bytes=cache_bytes), batch)
    except Exception:  # noqa: BLE001  # the network's own code runs here, in an order that it was not written for
        return Whole(network, [name for name, _ in heard])
    if not _same(_by_name(heard), _by_name(rehearsed)):
        return Whole(network, [name for name, _ in heard])
    return Pieces(flow, cache_bytes=cache_bytes)


def _rehearse(pieces: Pieces, batch: Tensor) -> Heard:
    """Circular waves run twice, as they will: a kept value that the network's code writes over would show."""
    heard: Heard = []
    with torch.no_grad():
        for wave in pieces.waves:
            if wave.circular:
                pieces.feed(wave, 0, batch, lambda *_: None)
            pieces.feed(wave, 0, batch, lambda name, values: heard.append((name, values.clone())))
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
