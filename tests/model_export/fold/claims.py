"""What a fold promises, whoever made the model: each promise is a function that fails with a sentence."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from benchmarks.bank.oracle import evaluate
from model_export.fold import FoldedModel, fold
from tests.model_export.fold.random_networks import Drawn

Array = NDArray[Any]
EXACT = 1e-9  # of the largest: float64 folds are right to about 1e-13, wrong ones are off by 1e-2
UNCHECKED = ("measured a difference", "can not be checked")


def check_all(drawn: Drawn) -> FoldedModel:
    """Fold the network, and hold the result against every promise."""
    model = ir.from_proto(drawn.model)
    given = _bytes(model)
    folded = fold(model)
    assert _bytes(model) == given, "the model that was given was changed"
    after = ir.to_proto(folded.model)
    onnx.checker.check_model(after, full_check=True)
    assert _bytes(fold(folded.model).model) == _bytes(folded.model), "folding twice is not folding once"
    check_interface(drawn.model, after)
    check_untouched_nodes(ir.to_proto(model), after)
    check_ledger(drawn.model, after, folded)
    check_answers(drawn, after)
    return folded


def check_interface(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    for kind in ("input", "output"):
        infos = [getattr(model.graph, kind) for model in (before, after)]
        described = [[(info.name, info.type.SerializeToString(deterministic=True)) for info in each] for each in infos]
        assert described[0] == described[1], f"an {kind} of the model is another"


def check_untouched_nodes(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """A node is there before and after, or is the sum that a fold needs; only a Gemm's attributes change."""
    known = {node.name: node for node in before.graph.node}
    for node in after.graph.node:
        if node.name not in known:
            assert node.op_type == "Add", f"{node.name} ({node.op_type}) came from nowhere"
            assert ".shift" in node.name, f"{node.name} ({node.op_type}) came from nowhere"
            continue
        old = known[node.name]
        assert node.op_type == old.op_type
        if node.op_type not in {"Gemm", "If"}:
            assert _attributes(node) == _attributes(old), f"{node.name} has other attributes"
    assert [n.name for n in after.graph.node if n.name in known] == [
        n.name for n in before.graph.node if n.name in {m.name for m in after.graph.node}
    ], "the order of the nodes changed"


def check_ledger(before: onnx.ModelProto, after: onnx.ModelProto, folded: FoldedModel) -> None:
    entries = [entry for entry in folded.report.entries if entry.form == "BatchNormalization"]
    assert Counter(entry.batchnorm for entry in entries) == _batchnorms(before.graph)
    assert Counter(entry.batchnorm for entry in entries if entry.outcome == "kept") == _batchnorms(after.graph)
    for entry in folded.report.entries:
        assert entry.outcome == "kept" or (entry.error is not None and entry.error <= EXACT)
        assert not any(words in (entry.reason or "") for words in UNCHECKED), f"planned wrongly: {entry}"


def check_answers(drawn: Drawn, after: onnx.ModelProto) -> None:
    """Every output, and every value that has the same name in both models, holds the same."""
    weights = {weight.name for weight in (*drawn.model.graph.initializer, *after.graph.initializer)}
    for feeds in drawn.feeds:
        expected, found = evaluate(drawn.model, feeds), evaluate(after, feeds)
        outputs = {output.name for output in drawn.model.graph.output}
        for name in outputs | ((expected.keys() & found.keys()) - weights):
            error = difference(expected[name], found[name])
            assert error <= EXACT, f"{name} is off by {error:.1e}"


def difference(expected: Array, found: Array) -> float:
    """The largest difference relative to the largest element."""
    if expected.shape != found.shape:
        return np.inf
    if expected.dtype.kind != "f":
        return float((expected != found).any())
    return float(np.abs(expected - found).max(initial=0)) / max(1.0, float(np.abs(expected).max(initial=0)))


def _batchnorms(graph: onnx.GraphProto) -> Counter[str]:
    found: Counter[str] = Counter()
    for node in graph.node:
        found += Counter([node.name] if node.op_type == "BatchNormalization" else [])
        for attribute in node.attribute:
            found += _batchnorms(attribute.g) if attribute.type == onnx.AttributeProto.GRAPH else Counter()
    return found


def _attributes(node: onnx.NodeProto) -> list[bytes]:
    return [attribute.SerializeToString(deterministic=True) for attribute in node.attribute]


def _bytes(model: ir.Model) -> bytes:
    content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return content
