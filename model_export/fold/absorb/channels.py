"""The channels of a layer: an affine map that varies along one axis only, as one pair of numbers for each channel."""

from __future__ import annotations

import numpy as np

from model_export.affine import Affine
from model_export.fold.ledger import Refused
from model_export.fold.nodes import name_of
from model_export.ir import ir


def along_channels(affine: Affine, *, axis: int, num_channels: int, node: ir.Node) -> Affine:
    """The map as arrays of shape (num_channels,).

    Raises:
        Refused: it varies along another axis than `axis`, or is made for another number of channels.
    """
    others = [k for k in range(affine.rank) if k != axis % affine.rank and affine.varies_along(k)]
    if others:
        raise Refused(f"the map varies along axis {others[0]}, the channels of {name_of(node)} are axis {axis}")
    if affine.shape[axis] not in {1, num_channels}:
        raise Refused(f"{name_of(node)} has {num_channels} channels for a map of {affine.shape[axis]}")
    return affine.map(lambda values: np.broadcast_to(values.reshape(-1), (num_channels,)))


def refuse_reading_elsewhere(node: ir.Node, index: int) -> None:
    """Refuse a value that the layer reads as its weight, its bias or a state."""
    if index != 0:
        raise Refused(f"{name_of(node)} does not read it as its input with the channels on axis 1", by=(name_of(node),))
