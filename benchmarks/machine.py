"""The machine and the versions that numbers belong to: without them a number says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import onnxruntime as ort

from benchmarks.load import find_wrk

PACKAGES = ("uvicorn", "httptools", "uvloop", "fastapi", "pydantic", "msgspec", "orjson", "numpy")


def describe_machine() -> dict[str, str]:
    """Say what this machine is and what runs on it, in words for a table."""
    return {
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join([f"onnxruntime {ort.__version__}", *map(_version, PACKAGES)]),
        "load": _wrk_version(),
    }


def _version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _wrk_version() -> str:
    """Wrk says its version, and exits with 1."""
    said = subprocess.run([find_wrk(), "-v"], capture_output=True, text=True, check=False).stdout
    return " ".join(said.partition("[")[0].split())
