"""Claims about the end of a run: it is audited, its exact statistics are kept, and a report lies beside it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from model_export.audit import Audit
from model_export.conclusion import Conclusion, conclude
from model_export.networks import NetworkOptions
from tests.model_export.runs import small_run

WHEN = dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)


def concluded(run_dir: Path, network: NetworkOptions) -> Conclusion:
    found: list[Conclusion] = []
    small_run(run_dir, network=network, at_end=lambda finished: found.append(conclude(finished, when=WHEN)))
    return found[0]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def conclusion(run_dir: Path) -> Conclusion:
    return concluded(run_dir, NetworkOptions(hidden=(16,)))


def test_the_report_lies_beside_the_checkpoint(conclusion: Conclusion, run_dir: Path) -> None:
    assert conclusion.report_path == run_dir / "report.html"
    text = conclusion.report_path.read_text()
    assert "Training report: mlp on digits" in text
    assert "2026-01-02" in text
    assert "of at most 3 epochs" in text
    assert "Moving average against exact" in text


def test_the_exact_statistics_are_kept_for_the_export(conclusion: Conclusion, run_dir: Path) -> None:
    assert isinstance(conclusion.audit, Audit)
    assert (run_dir / "best.exact.json").is_file()


def test_the_audit_is_of_the_best_checkpoint(conclusion: Conclusion) -> None:
    assert [layer.batchnorm for layer in conclusion.audit.layers] == ["batchnorm0", "batchnorm1"]
    assert conclusion.audit.subject.weights_match is True


def test_a_network_without_batchnorm_is_reported_too(tmp_path: Path) -> None:
    found = concluded(tmp_path, NetworkOptions(hidden=(16,), placement="none"))
    assert "nothing to freeze" in found.audit.advice
    assert found.report_path.is_file()


def test_a_report_that_can_not_be_written_leaves_the_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()  # in its way
    with pytest.raises(OSError, match=r"report\.html"):
        concluded(tmp_path, NetworkOptions(hidden=(16,)))
    assert (tmp_path / "best.ckpt").is_file()
