"""`export CHECKPOINT --out models/NAME/VERSION`: runs the pipeline and shows the bundle that came of it."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from rich.console import Console

from model_export.commands.choices import choose, parse_bytes
from model_export.commands.present import show_bundle
from model_export.devices import find_device
from model_export.errors import ExportError
from model_export.lowering import MAX_ACCURACY_DROP
from model_export.measuring import MeasuringOptions, Method
from model_export.pipeline import ExportRequest, build_bundle
from model_export.statistics import Progress
from service.bundle import Bundle, Precision
from service.device import Device


def run_export(  # noqa: PLR0913 - the command's flags
    checkpoint: Path,
    out: Path,
    console: Console,
    *,
    statistics: str,
    samples: int | None,
    cache_memory: str,
    device: str,
    raw_path: Path | None,
    overwrite: bool,
    precision: str = "fp32",
    max_accuracy_drop: float | None = None,
) -> Bundle:
    """Export and show the bundle.

    Raises:
        ExportError: a flag has a value that is not one of its choices, or the pipeline refused.
    """
    start = time.perf_counter()
    _refuse_limit_without_lowering(precision, max_accuracy_drop)
    request = ExportRequest(
        checkpoint=checkpoint,
        out=out,
        statistics=choose("--statistics", statistics, Method),
        measuring=MeasuringOptions(
            samples=samples,
            cache_bytes=parse_bytes("--cache-memory", cache_memory),
            device="cpu" if device == "cpu" else find_device("auto"),
        ),
        device=choose("--device", device, Device),
        raw_path=raw_path,
        overwrite=overwrite,
        precision=choose("--precision", precision, Precision),
        max_accuracy_drop=MAX_ACCURACY_DROP if max_accuracy_drop is None else max_accuracy_drop,
    )
    with console.status("Reading the checkpoint") as status:
        bundle = build_bundle(request, status.update, tell=lambda step: status.update(_describe(step)))
    show_bundle(bundle.manifest, console)
    seconds = time.perf_counter() - start
    console.print(f"Written to {bundle.directory} in {seconds:.1f} s. Serve it:", soft_wrap=True, markup=False)
    console.print(f"  python -m service --models {shlex.quote(str(bundle.directory))}", soft_wrap=True, markup=False)
    return bundle


def _refuse_limit_without_lowering(precision: str, max_accuracy_drop: float | None) -> None:
    if precision == "fp32" and max_accuracy_drop is not None:
        raise ExportError("--max-accuracy-drop limits what a lower --precision may cost: fp32 costs nothing, drop it")


def _describe(step: Progress) -> str:
    return f"Measuring the statistics: wave {step.wave} of {step.num_waves}, batch {step.batch} of {step.num_batches}"
