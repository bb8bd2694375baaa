"""What one fold will change, as a value: it can be looked at, checked on random data, refused, and then carried out.

An edit never writes into a constant: it says which input of which node reads a new one, so that a weight that two
layers share is copied by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from model_export.fold.constants import Exact
from model_export.fold.ledger import Refused
from model_export.fold.nodes import name_of
from model_export.ir import ir

Slot = tuple[ir.Node, int]


@dataclass(frozen=True)
class Edit:
    """The changes of one fold.

    constants    what an input of a node will read: a weight, a bias, a table
    dropped      attributes that become part of the constants (Gemm's alpha and beta)
    shifts       values behind which a constant is added
    bypassed     nodes that go: their readers read the input of this index instead
    changed      values that will hold something else, and so get another name
    layers       the nodes that absorb, in the order in which they were found
    path         the nodes in between, through which the map was carried
    """

    constants: Mapping[Slot, Exact] = field(default_factory=dict)
    dropped: Mapping[ir.Node, tuple[str, ...]] = field(default_factory=dict)
    shifts: Mapping[ir.Value, Exact] = field(default_factory=dict)
    bypassed: Mapping[ir.Node, int] = field(default_factory=dict)
    changed: tuple[ir.Value, ...] = ()
    layers: tuple[ir.Node, ...] = ()
    path: tuple[ir.Node, ...] = ()

    def also(self, other: Edit) -> Edit:
        """Both edits at once.

        Raises:
            Refused: they change the same thing, as where a value reaches a layer by two ways.
        """
        twice = [
            *(name_of(node) for node, _ in self.constants.keys() & other.constants.keys()),
            *(str(value.name) for value in self.shifts.keys() & other.shifts.keys()),
            *(name_of(node) for node in self.bypassed.keys() & other.bypassed.keys()),
        ]
        if twice:
            raise Refused(f"{twice[0]} is reached by two ways")
        return Edit(
            constants={**self.constants, **other.constants},
            dropped={**self.dropped, **other.dropped},
            shifts={**self.shifts, **other.shifts},
            bypassed={**self.bypassed, **other.bypassed},
            changed=(*self.changed, *other.changed),
            layers=(*self.layers, *other.layers),
            path=(*self.path, *other.path),
        )

    def computed(self) -> Edit:
        """The same edit with all constants computed, for somebody who needs them more than once."""
        constants = {slot: exact.computed() for slot, exact in self.constants.items()}
        return replace(self, constants=constants, shifts={v: exact.computed() for v, exact in self.shifts.items()})

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """Every node that the edit touches or leads through, each once."""
        makers = (value.producer() for value in (*self.shifts, *self.changed))
        touched = (
            *(node for node, _ in self.constants),
            *self.dropped,
            *self.bypassed,
            *self.layers,
            *self.path,
            *(node for node in makers if node is not None),
        )
        return tuple(dict.fromkeys(touched))
