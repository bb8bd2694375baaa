"""Proves shapes: what a file states about the values in between is a claim; what follows from its inputs is proof.

While rules look at a model it carries only the shapes that ONNX's own inference derives from the model's inputs and
weights. Afterwards the file's statements are back, as they were.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass


@contextmanager
def proved_shapes(model: ir.Model) -> Iterator[None]:
    """Give the values of the main graph the shapes that can be proved, and none elsewhere, for the time of a block."""
    proved = _infer_shapes(model)
    stated = {value: value.shape for node in model.graph for value in node.outputs}
    for value in stated:
        value.shape = proved.get(str(value.name))
    try:
        yield
    finally:
        for value, shape in stated.items():
            value.shape = shape


def _infer_shapes(model: ir.Model) -> dict[str, ir.Shape | None]:
    """The shape of each node's output by name. On a clone: the pass reorders initializers."""
    bare = model.clone()
    for value in bare.graph.inputs:  # an initializer that a caller may override proves nothing
        bare.graph.initializers.pop(str(value.name), None)
    for node in bare.graph:
        for value in node.outputs:
            value.shape = None
    with _quiet(ShapeInferencePass.__module__):
        inferred = ShapeInferencePass()(bare).model
    return {str(value.name): value.shape for node in inferred.graph for value in node.outputs}


@contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """A failed inference proves nothing, which is not the user's trouble; the pass would log a traceback."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
