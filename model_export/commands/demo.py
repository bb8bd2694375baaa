"""`demo`: the whole path on real data, from training to an answer over HTTP, as a user would walk it.

The service is a process of its own, spoken to over HTTP only, just as a client would.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from model_export.commands.present import show_bundle
from model_export.data import DataSource
from model_export.errors import ExportError
from model_export.networks import NetworkOptions
from model_export.options import TrainingOptions
from model_export.pipeline import ExportRequest, build_bundle
from model_export.train import train
from service.bundle import Bundle

ANNOUNCEMENT = "listening on "
STOP_SECONDS = 20
SHADES = " .:-=+*#%@"  # from white to black


@dataclass(frozen=True)
class Answer:
    """One answer of the service: the label that it names, the label's score, and the model that computed it."""

    label: str
    score: float
    model: str


def run_demo(models_dir: Path, runs_dir: Path, console: Console) -> None:
    """Train on digits, export, serve on a free port, predict one held-out instance, stop.

    Raises:
        FoldserveError: a step failed, and says why.
    """
    console.rule("1  train")
    result = train(
        DataSource(spec="digits"), NetworkOptions(), TrainingOptions(), run_dir=runs_dir / "digits", overwrite=True
    )
    console.print(f"{result.seconds:.1f} s, best epoch {result.run.best.epoch} of {len(result.run.history)}")
    console.rule("2  freeze, export, fold, verify")
    bundle = build_bundle(
        ExportRequest(checkpoint=result.best_path, out=models_dir / "digits" / "1", overwrite=True), console.print
    )
    show_bundle(bundle.manifest, console)
    console.rule("3  serve, predict")
    _predict_one(bundle, console)
    console.rule()
    console.print("Start it for good:      make serve", soft_wrap=True)
    console.print(
        "Train on your own data: .venv/bin/python -m model_export train --data FILE.csv --target COLUMN", soft_wrap=True
    )


def _predict_one(bundle: Bundle, console: Console) -> None:
    example = bundle.examples[-1]
    with _service(bundle.directory) as url:
        console.print(f"POST {url}/predict, a held-out instance:", soft_wrap=True)
        console.print(escape(_picture(example.instance, bundle.manifest.signature.input.shape)), highlight=False)
        answer = _post(f"{url}/predict", {"instance": example.instance})
    console.print(
        f"[bold]predicted {escape(answer.label)}[/] (score {answer.score:.4f}, by {answer.model}), "
        f"the true label is [bold]{escape(str(example.label))}[/]",
        soft_wrap=True,
    )


@contextmanager
def _service(models: Path) -> Iterator[str]:
    """A running service on a free port; yields its address."""
    command = [sys.executable, "-m", "service", "--models", str(models), "--port", "0"]
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True)
        try:
            yield _wait_for_address(process, complaints)
        finally:
            process.terminate()
            process.communicate(timeout=STOP_SECONDS)


def _wait_for_address(process: subprocess.Popen[str], complaints: Any) -> str:
    for line in process.stdout or ():
        if line.startswith(ANNOUNCEMENT):
            return line.removeprefix(ANNOUNCEMENT).split(",")[0].strip()
    complaints.seek(0)
    raise ExportError(f"the service did not start: {complaints.read().strip()}")


def _post(url: str, body: dict[str, Any]) -> Answer:
    request = urllib.request.Request(  # noqa: S310 - our own process, on this machine
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310
        answer = json.load(response)
    prediction, model = answer["prediction"], answer["model"]
    return Answer(prediction["label"], max(prediction["scores"]), f"{model['name']} version {model['version']}")


def _picture(instance: list[float], shape: tuple[int, ...]) -> str:
    """A grey image as text, a line for each row."""
    _, height, width = shape
    darkest = max(instance)
    dots = [SHADES[round(value / darkest * (len(SHADES) - 1))] * 2 for value in instance]
    return "\n".join("    " + "".join(dots[row * width : (row + 1) * width]) for row in range(height))
