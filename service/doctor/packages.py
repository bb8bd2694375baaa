"""What is installed: Python, foldserve, ONNX Runtime (once, not twice), and what makes the server fast.

Nothing in here imports ONNX Runtime: it has to be able to say that it is missing.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distributions, version

from service.doctor.finding import Finding, note, ok, wrong

OLDEST_PYTHON = (3, 11)
# Each of these wheels unpacks into the one folder `onnxruntime`, over what another has put there.
RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-training",
    "ort-nightly",
    "ort-nightly-gpu",
)
ACCELERATORS = {
    "uvloop": "the event loop is asyncio's own, which takes longer for each request",
    "httptools": "uvicorn parses HTTP in Python",
    "simdjson": "bodies are parsed by a slower reader",
}
PACKAGE_OF = {"simdjson": "pysimdjson"}


def list_installed() -> dict[str, str]:
    """Give the version of every installed distribution, by its name in lower case."""
    found = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name:
            found[name.lower().replace("_", "-")] = distribution.version
    return found


def check_python(found: Sequence[int] = sys.version_info[:3]) -> list[Finding]:
    """Is this Python new enough?"""
    name, words = "Python", f"{platform.python_implementation()} {'.'.join(map(str, found))} in {sys.prefix}"
    if tuple(found[:2]) >= OLDEST_PYTHON:
        return [ok(name, words)]
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return [
        wrong(name, words, f"foldserve needs Python {oldest}", f"make an environment with Python {oldest} or newer")
    ]


def check_foldserve() -> list[Finding]:
    """Is foldserve installed, or only lying here?"""
    try:
        return [ok("foldserve", f"version {version('foldserve')}")]
    except PackageNotFoundError:
        return [ok("foldserve", "runs from its source, as it does in its images; the version is not known")]


def check_runtime_wheels(installed: Mapping[str, str]) -> list[Finding]:
    """Is there one ONNX Runtime, and not two in one folder?"""
    name = "ONNX Runtime wheel"
    found = {wheel: installed[wheel] for wheel in RUNTIMES if wheel in installed}
    words = " and ".join(f"{wheel} {number}" for wheel, number in found.items())
    if len(found) == 1:
        return [ok(name, words)]
    if not found:
        return [
            wrong(
                name,
                "neither onnxruntime nor onnxruntime-gpu is installed",
                "no model can be opened",
                "pip install 'foldserve[gpu]' where there is an NVIDIA GPU, else 'foldserve[cpu]'",
            )
        ]
    return [
        wrong(
            name,
            f"{words} are installed",
            "they share one folder: which of them runs is chance, and a GPU is often lost without a word",
            f"pip uninstall --yes {' '.join(found)}; then install one again: pip install 'foldserve[gpu]', or [cpu]",
        )
    ]


def check_accelerators(modules: Mapping[str, str] = ACCELERATORS) -> list[Finding]:
    """Is all there that makes requests fast?"""
    missing = {module: cost for module, cost in modules.items() if importlib.util.find_spec(module) is None}
    present = [module for module in modules if module not in missing]
    notes = [
        note(module, f"{module} is not installed", cost, f"pip install {PACKAGE_OF.get(module, module)}")
        for module, cost in missing.items()
    ]
    return [*([ok("speed", f"{', '.join(present)} are there")] if present else []), *notes]
