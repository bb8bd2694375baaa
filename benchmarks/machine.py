"""The machine that serves and is loaded: the computer, the versions, and the program that sends the load."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import onnxruntime as ort

from benchmarks.computer import describe_computer
from benchmarks.environments import versions_in
from benchmarks.load import find_wrk

PACKAGES = ("uvicorn", "httptools", "zttp", "uvloop", "fastapi", "pydantic", "msgspec", "orjson", "numpy")
PACKAGES_OF_PEERS = ("onnxruntime", "uvicorn", "httptools", "uvloop", "fastapi", "starlette", "pydantic", "numpy")


def describe_machine(environments: Sequence[str] = ()) -> dict[str, str]:
    """Say what this machine is and what runs on it, in words for a table; and what runs in these environments."""
    computer = describe_computer(PACKAGES)
    packages = f"onnxruntime {ort.__version__}, {computer['packages']}"
    others = {name: versions_in(name, (name, *PACKAGES_OF_PEERS)) for name in environments}
    return computer | {"packages": packages} | others | {"load": _wrk_version()}


def _wrk_version() -> str:
    """Wrk says its version, and exits with 1."""
    said = subprocess.run([find_wrk(), "-v"], capture_output=True, text=True, check=False).stdout
    return " ".join(said.partition("[")[0].split())
