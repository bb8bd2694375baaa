"""`fold IN.onnx OUT.onnx`: folds any ONNX model, compares, and shows where each BatchNorm went."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from model_export.commands.present_fold import show_explanation, show_fold
from model_export.errors import FoldInvalid, first_line
from model_export.fold import FoldedModel, fold
from model_export.fold.check import Comparison, compare, record
from model_export.fold.explain import explain
from model_export.fold.files import check_readable, drafted, load_model, move_into_place
from model_export.fold.latency import Latency, latency_of
from model_export.fold.provenance import Measured, provenance_of, sha256_of_file, stamp
from model_export.fold.selection import Selection
from model_export.memory import keep_large_memory_apart, release_memory, return_memory
from service.bundle import FoldReport


@dataclass(frozen=True, kw_only=True)
class FoldRequest:
    """What to fold, and what to tell of it. Without a target nothing is written."""

    source: Path
    target: Path | None = None
    report_path: Path | None = None
    explained: str | None = None
    selection: Selection = Selection()  # noqa: RUF009 - a frozen value


@dataclass(frozen=True)
class FoldResult:
    """The ledger, and what the comparison with the original and the clock say."""

    report: FoldReport
    comparison: Comparison
    latency: Latency | None


def run_fold(request: FoldRequest, console: Console) -> None:
    """Fold, compare in ONNX Runtime, and only then write.

    Raises:
        FoldInvalid: a file can not be read or written, or the result is not the same function.
    """
    _check_places(request)
    if request.target is None and request.explained is not None:
        _explain_only(request, console)
        return
    result = _fold_and_compare(request, console)
    if request.report_path is not None:
        _write_report(result, request.report_path)
    show_fold(result.report, result.comparison, result.latency, console)
    where = f"written   {request.target}" if request.target else "written   nothing: this was a check only"
    console.print(f"  {where}", soft_wrap=True, markup=False)


def _check_places(request: FoldRequest) -> None:
    places = [path for path in (request.source, request.target) if path is not None]
    for path in places:
        if request.report_path is not None and request.report_path.resolve() == path.resolve():
            raise FoldInvalid(f"the model and its report can not both be {path}: name two files")


def _fold_and_compare(request: FoldRequest, console: Console) -> FoldResult:
    """The original is run first and let go, so that never two models are held by the runtime."""
    check_readable(request.source)
    keep_large_memory_apart()
    recording = record(request.source)
    return_memory()
    model = load_model(request.source)
    folded = fold(model, request.selection)
    if request.explained is not None:
        show_explanation(explain(model, folded.report, request.explained), console)
    del model
    with _placed(request, folded) as draft, ThreadPoolExecutor(1) as beside:
        report = folded.report
        del folded
        release_memory()
        digest = beside.submit(sha256_of_file, request.source)  # ONNX Runtime leaves a core free
        comparison = compare(recording, draft)
        return_memory()
        latency = latency_of(recording, comparison, draft)
        if request.target is not None:
            _stamp(draft, digest.result(), report, comparison)
            move_into_place(draft, request.target)
    return FoldResult(report, comparison, latency)


def _explain_only(request: FoldRequest, console: Console) -> None:
    model = load_model(request.source)
    folded = fold(model, request.selection)
    show_explanation(explain(model, folded.report, str(request.explained)), console)


@contextmanager
def _placed(request: FoldRequest, folded: FoldedModel) -> Iterator[Path]:
    """The folded model in a file that is not in its place yet; the original itself where nothing was folded."""
    if request.target is None:
        with (
            tempfile.TemporaryDirectory(prefix="foldserve-") as folder,
            drafted(folded.model, Path(folder) / "folded.onnx") as draft,
        ):
            del folded
            yield draft
        return
    is_the_original = _nothing_was_folded(folded.report)
    with drafted(folded.model, request.target) as draft:
        del folded
        if is_the_original and not draft.with_name(f"{draft.name}.data").exists():
            shutil.copyfile(request.source, draft)
        yield draft


def _nothing_was_folded(report: FoldReport) -> bool:
    return all(entry.outcome == "kept" for entry in report.entries)


def _stamp(draft: Path, digest: str, report: FoldReport, comparison: Comparison) -> None:
    """Note where the model comes from. What was not folded is the original still, byte for byte."""
    if _nothing_was_folded(report):
        return
    measured = Measured(comparison.relative_difference, comparison.in_noise_floors)
    provenance = provenance_of(report, measured, source_sha256=digest, statistics="as found")
    try:
        stamp(draft, provenance)
    except OSError as err:
        raise FoldInvalid(f"{draft} can not be written: {first_line(err)}") from err


def _write_report(result: FoldResult, path: Path) -> None:
    account: dict[str, Any] = {
        **msgspec.to_builtins(result.report),
        "totals": {
            outcome: sum(entry.outcome == outcome for entry in result.report.entries)
            for outcome in ("folded", "merged", "kept")
        },
        "comparison": asdict(result.comparison),
        "latency": None if result.latency is None else asdict(result.latency),
    }
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(account), indent=1) + b"\n")
    except OSError as err:
        raise FoldInvalid(f"the report can not be written to {path}: {first_line(err)}") from err
