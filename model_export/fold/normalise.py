"""Brings a model of an old format into the form that the rules expect.

Before IR version 4 every initializer had to be an input of the graph too, whether or not anybody wanted to feed it.
Those are constants here, and a folded weight that a caller could still replace by the old one would be wrong: so they
leave the inputs, and the model becomes one of IR version 4. From version 4 on, to be both is a choice, and respected.
"""

from __future__ import annotations

from model_export.ir import ir

FIRST_WITH_OWN_INITIALIZERS = 4


def drop_overridable_inputs(model: ir.Model) -> None:
    """Take the initializers of an IR 3 model out of its inputs, in place; other models stay as they are."""
    if model.ir_version is None or model.ir_version >= FIRST_WITH_OWN_INITIALIZERS:
        return
    for value in list(model.graph.inputs):
        if value.is_initializer():
            model.graph.inputs.remove(value)
    model.ir_version = FIRST_WITH_OWN_INITIALIZERS
