"""Runs one node by ONNX's own reference implementation, which is slow, in numpy, and the definition of the standard."""

from __future__ import annotations

from typing import Any

import numpy as np

from model_export.ir import ir


def evaluate_by_reference(
    node: ir.Node, inputs: list[np.ndarray[Any, Any] | None], opset: int
) -> list[np.ndarray[Any, Any]]:
    """The outputs of `node` for these inputs; None where an optional one is left out.

    Raises:
        Exception: whatever the reference raises: it does not know the operator, or not these dtypes or shapes.
    """
    from onnx.reference import ReferenceEvaluator

    proto = ir.to_proto(node)
    names = [f"input{k}" if array is not None else "" for k, array in enumerate(inputs)]
    del proto.input[:], proto.output[:]
    proto.input.extend(names)
    proto.output.extend(f"output{k}" for k in range(len(node.outputs)))
    evaluator = ReferenceEvaluator(proto, opsets={"": opset})
    feeds = {name: array for name, array in zip(names, inputs, strict=True) if name}
    return [np.asarray(output) for output in evaluator.run(None, feeds)]
