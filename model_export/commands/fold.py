"""`fold IN.onnx OUT.onnx`: folds any ONNX model, and shows where each BatchNorm went."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console

from model_export.commands.present import show_ledger
from model_export.errors import FoldInvalid, first_line
from model_export.fold import fold
from model_export.fold.check import Comparison, compare
from model_export.fold.files import load_model, save_model
from service.bundle import FoldReport


def run_fold(source: Path, target: Path, console: Console, *, report_path: Path | None) -> None:
    """Fold `source` into `target`, compared in ONNX Runtime before it is written.

    Raises:
        FoldInvalid: a file can not be read or written, or the result is not the same function.
    """
    if report_path is not None and report_path.resolve() == target.resolve():
        raise FoldInvalid(f"the model and its report can not both be {target}: name two files")
    model = load_model(source)
    folded = fold(model)
    comparison = compare(model, folded.model)
    if report_path is not None:
        _write_report(folded.report, report_path)
    save_model(folded.model, target)
    show_ledger(folded.report, console)
    for line in (f"compared  {_describe(comparison)}", f"written   {target}"):
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _describe(comparison: Comparison) -> str:
    if comparison.relative_difference is None:
        return f"not compared with the original: {comparison.not_compared}"
    return (
        f"largest difference {comparison.relative_difference:.1e} of the largest output, "
        "on random instances in ONNX Runtime"
    )


def _write_report(report: FoldReport, path: Path) -> None:
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    except OSError as err:
        raise FoldInvalid(f"the report can not be written to {path}: {first_line(err)}") from err
