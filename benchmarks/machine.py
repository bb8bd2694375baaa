"""The machine that serves and is loaded: the computer, the versions, and the program that sends the load."""

from __future__ import annotations

import subprocess

import onnxruntime as ort

from benchmarks.computer import describe_computer
from benchmarks.load import find_wrk

PACKAGES = ("uvicorn", "httptools", "uvloop", "fastapi", "pydantic", "msgspec", "orjson", "numpy")


def describe_machine() -> dict[str, str]:
    """Say what this machine is and what runs on it, in words for a table."""
    computer = describe_computer(PACKAGES)
    packages = f"onnxruntime {ort.__version__}, {computer['packages']}"
    return computer | {"packages": packages, "load": _wrk_version()}


def _wrk_version() -> str:
    """Wrk says its version, and exits with 1."""
    said = subprocess.run([find_wrk(), "-v"], capture_output=True, text=True, check=False).stdout
    return " ".join(said.partition("[")[0].split())
