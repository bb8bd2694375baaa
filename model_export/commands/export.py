"""`export CHECKPOINT --out models/NAME/VERSION`: runs the pipeline and shows the bundle that came of it."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from rich.console import Console

from model_export.commands.choices import choose
from model_export.commands.present import show_bundle
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
    start = time.perf_counter()
    request = ExportRequest(
        checkpoint=checkpoint,
        out=out,
        statistics=choose("--statistics", statistics, Method),
        device=choose("--device", device, Device),
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
