"""Where a folded model comes from stands in the file, for every reader of ONNX, and changes no answer."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from model_export.fold import FoldedModel, fold
from model_export.fold.files import load_model, save_model
from model_export.fold.provenance import (
    Measured,
    Provenance,
    forget_provenance,
    provenance_of,
    sha256_of_file,
    sha256_of_ledger,
    stamp,
    summary_of,
)
from tests.model_export.fold.graphs import GraphBuilder

SOURCE = "0" * 64


def _folded() -> FoldedModel:
    b = GraphBuilder(np.random.default_rng(0), dtype=np.float32)
    hidden = b.node("Elu", [b.batchnorm(b.gemm("x", 40, 30, "dense"), 30, "bn0")], "elu")
    return fold(b.model((40,), [b.node("Elu", [b.batchnorm(hidden, 30, "bn1")], "elu1")]))


def _provenance(folded: FoldedModel) -> Provenance:
    return provenance_of(folded.report, Measured(1.5e-7, 0.25), source_sha256=SOURCE, statistics="exact")


@pytest.fixture
def stamped(tmp_path: Path) -> tuple[Path, Path]:
    """The same folded model without and with its provenance."""
    folded = _folded()
    for name in ("bare", "stamped"):
        save_model(folded.model, tmp_path / f"{name}.onnx")
    stamp(tmp_path / "stamped.onnx", _provenance(folded))
    return tmp_path / "bare.onnx", tmp_path / "stamped.onnx"


EXPECTED = {
    "foldserve.source_sha256": SOURCE,
    "foldserve.statistics": "exact",
    "foldserve.folded": "1 of 2 BatchNorms",
    "foldserve.largest_difference": "1.50e-07",
    "foldserve.noise_floors": "0.25",
}


def test_onnx_reads_the_provenance(stamped: tuple[Path, Path]) -> None:
    found = {entry.key: entry.value for entry in onnx.load(stamped[1]).metadata_props}
    assert found.items() >= EXPECTED.items()
    assert found["foldserve.ledger_sha256"] == sha256_of_ledger(_folded().report)
    assert len(found) == len(EXPECTED) + 2  # the ledger's digest and the version


def test_onnx_runtime_reads_the_provenance(stamped: tuple[Path, Path]) -> None:
    session = onnxruntime.InferenceSession(stamped[1], providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map.items() >= EXPECTED.items()


def test_the_appended_lines_change_nothing_else_in_the_model(stamped: tuple[Path, Path]) -> None:
    bare, marked = (onnx.load(path) for path in stamped)
    onnx.checker.check_model(marked, full_check=True)
    del marked.metadata_props[:]
    assert marked.SerializeToString(deterministic=True) == bare.SerializeToString(deterministic=True)
    assert stamped[1].read_bytes().startswith(stamped[0].read_bytes())


def test_answers_are_the_same_bit_for_bit(stamped: tuple[Path, Path]) -> None:
    x = np.random.default_rng(1).normal(size=(3, 40)).astype(np.float32)
    bare, marked = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x}) for path in stamped
    )
    assert np.array_equal(bare[0], marked[0])


def test_a_stamped_model_can_be_folded_again_and_forgets_what_is_not_true_of_it(stamped: tuple[Path, Path]) -> None:
    model = load_model(stamped[1])
    model.metadata_props["somebody.elses"] = "note"
    forget_provenance(model)
    assert dict(model.metadata_props) == {"somebody.elses": "note"}


def test_a_model_that_was_not_compared_says_so() -> None:
    provenance = provenance_of(_folded().report, Measured(None, None), source_sha256=SOURCE, statistics="as found")
    assert (provenance.largest_difference, provenance.noise_floors) == ("not compared", "not compared")


def test_the_digest_of_the_ledger_changes_with_any_part_of_it() -> None:
    report = _folded().report
    first, *rest = report.entries
    others = [
        replace(report, entries=(replace(first, into=("other",)), *rest)),
        replace(report, entries=tuple(reversed(report.entries))),
        replace(report, num_nodes_after=report.num_nodes_after + 1),
    ]
    digests = {sha256_of_ledger(each) for each in (report, *others)}
    assert len(digests) == 1 + len(others)
    assert sha256_of_ledger(_folded().report) == sha256_of_ledger(report)


def test_the_digest_of_a_file_is_that_of_all_its_bytes(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3 * 2**20 + 17)  # more than is read at once
    (tmp_path / "file").write_bytes(content)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_the_summary_counts_what_is_gone() -> None:
    assert summary_of(_folded().report) == "1 of 2 BatchNorms"
