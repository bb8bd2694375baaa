"""The graph as it will be once the folds planned so far are applied: planning looks at this, and touches no node.

A BatchNorm that is planned away is passed over, so that a second one behind it sees the layer that took the first;
a layer is seen with the weights that it will have. Everything stays in float64: rounding happens once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from model_export.fold.layers import Layer, read_layer, weight_of
from model_export.fold.ledger import Refused
from model_export.fold.values import constant, input_of, is_op, name_of


@dataclass
class Draft:
    """What is planned: `gone`, the BatchNorms that will not be there, and `layers`, those that will be rewritten."""

    graph: ir.Graph
    opset: int
    gone: dict[ir.Node, None] = field(default_factory=dict)
    layers: dict[ir.Node, Layer] = field(default_factory=dict)

    def layer(self, node: ir.Node) -> Layer:
        """The linear operator at this node, with the weights planned so far. Raises Refused as `read_layer` does."""
        return self.layers.get(node) or read_layer(node, self.opset)

    def accept(self, batchnorm: ir.Node, layers: tuple[Layer, ...]) -> None:
        """Plan that these layers replace what stands at their nodes, and that the BatchNorm goes.

        Raises:
            Refused: a weight or bias would not be finite in the layer's dtype; then nothing is planned.
        """
        for layer in layers:
            _refuse_overflow(layer)
        self.layers |= {layer.node: layer for layer in layers}
        self.gone[batchnorm] = None

    def readers(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        """The nodes that will read the value, each with the index of the input.

        Raises:
            Refused: it is an output of the model, or read in the body of an If, Loop or Scan, whose names are its own.
        """
        if value.is_graph_output():
            raise Refused(f"{value.name} is an output of the model, and would change")
        for node, _ in value.uses():
            if node.graph is not self.graph:
                raise Refused(f"{value.name} is read by {name_of(node)} in the body of a control-flow node")
        return [reader for node, index in value.uses() for reader in self._through(node, index)]

    def origin(self, value: ir.Value) -> tuple[ir.Value, tuple[str, ...]]:
        """Walk back over nodes that change nothing, to the value they started from, and name them in data order.

        Raises:
            Refused: a value on the way has another reader, which a fold would disturb.
        """
        self._refuse_other_readers(value)
        node = value.producer()
        if node is None or not (node in self.gone or is_transparent(node)):
            return value, ()
        source = node.inputs[0]
        if source is None:
            return value, ()
        found, path = self.origin(source)
        return found, path if node in self.gone else (*path, name_of(node))

    def _through(self, node: ir.Node, index: int) -> list[tuple[ir.Node, int]]:
        return self.readers(node.outputs[0]) if node in self.gone else [(node, index)]

    def _refuse_other_readers(self, value: ir.Value) -> None:
        readers = self.readers(value)
        if len(readers) > 1:
            names = ", ".join(name_of(node) for node, _ in readers)
            raise Refused(f"{value.name} has {len(readers)} readers ({names}), and a fold would change it for all")


def is_transparent(node: ir.Node) -> bool:
    """Whether the node hands its input on as it is: Identity, or Dropout in inference mode."""
    if is_op(node, "Identity"):
        return True
    return is_op(node, "Dropout") and not _drops(node)


def _drops(dropout: ir.Node) -> bool:
    training_mode = input_of(dropout, 2)
    if any(output.uses() or output.is_graph_output() for output in dropout.outputs[1:]):
        return True
    try:
        return training_mode is not None and bool(constant(training_mode, "training_mode").any())
    except Refused:
        return True


def _refuse_overflow(layer: Layer) -> None:
    with np.errstate(over="ignore"):
        rounded = [array.astype(layer.dtype.numpy()) for array in (weight_of(layer), layer.linear.bias)]
    if not all(np.isfinite(array).all() for array in rounded):
        raise Refused(f"the folded weights of {layer.name} would overflow {layer.dtype.name.lower()}")
