"""Names for nodes: each is called after the module of the network that it comes from, so reports speak that language.

A module's layer, and a module's only node, get the module's name, `encoder.0`; other nodes `encoder.0/Add`. A layer
that is applied again is `encoder.0_2`. Nodes of the outermost forward keep the name of the function that was called.
"""

from __future__ import annotations

import ast
from collections import Counter
from itertools import count

from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from model_export.ir import ir

SCOPES_KEY = "pkg.torch.onnx.name_scopes"
LAYERS = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})


def name_nodes(model: ir.Model) -> None:
    """Name every node of `model` in place, uniquely; the exporter's notes, which hold paths of this machine, go."""
    nodes = list(model.graph.all_nodes())
    num_nodes = Counter(_module_name(node) for node in nodes)
    taken: set[str] = set()
    for node in sorted(nodes, key=_is_no_layer):
        node.name = _unique(_name(node, num_nodes), taken)
        taken.add(node.name)
    ClearMetadataAndDocStringPass()(model)


def _name(node: ir.Node, num_nodes: Counter[str]) -> str:
    module = _module_name(node)
    if not module:
        return (node.name or node.op_type).removeprefix("node_")
    if node.op_type in LAYERS or num_nodes[module] == 1:
        return module
    return f"{module}/{node.op_type}"


def _module_name(node: ir.Node) -> str:
    """The exporter notes the modules around a node, outermost first, and last the function that was called."""
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES_KEY, "[]"))
    return str(scopes[-2]) if len(scopes) > 1 else ""


def _is_no_layer(node: ir.Node) -> bool:
    """As a key for sorting: layers come first, and so get the plain names."""
    return node.op_type not in LAYERS


def _unique(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    return next(numbered for number in count(2) if (numbered := f"{name}_{number}") not in taken)
