"""`export CHECKPOINT --out models/NAME/VERSION`: runs the pipeline and shows the bundle that came of it."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from model_export.commands.present import show_bundle
from model_export.errors import ExportError
from model_export.pipeline import ExportRequest, Method, build_bundle
from service.bundle import Bundle
from service.device import Device


def run_export(  # noqa: PLR0913 - the command's flags
    checkpoint: Path,
    out: Path,
    console: Console,
    *,
    statistics: str,
    device: str,
    raw_path: Path | None,
    overwrite: bool,
) -> Bundle:
    """Export and show the bundle.

    Raises:
        ExportError: a flag has a value that is not one of its choices, or the pipeline refused.
    """
    _check_choice("--statistics", statistics, Method)
    _check_choice("--device", device, Device)
    start = time.perf_counter()
    request = ExportRequest(
        checkpoint=checkpoint,
        out=out,
        statistics="ema" if statistics == "ema" else "exact",
        device="cuda" if device == "cuda" else "cpu" if device == "cpu" else "auto",
        raw_path=raw_path,
        overwrite=overwrite,
    )
    with console.status("Reading the checkpoint") as status:
        bundle = build_bundle(request, status.update)
    show_bundle(bundle.manifest, console)
    seconds = time.perf_counter() - start
    console.print(f"Written to {bundle.directory} in {seconds:.1f} s. Serve it:", soft_wrap=True, markup=False)
    console.print(f"  python -m service --models {shlex.quote(str(bundle.directory))}", soft_wrap=True, markup=False)
    return bundle


def _check_choice(flag: str, value: str, choices: Any) -> None:
    known = get_args(choices)
    if value not in known:
        raise ExportError(f"{flag} is {value!r}: expected one of {', '.join(known)}")
