"""What the ONNX Runtime that is imported says of itself, and to whom it reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.doctor.finding import Finding, note, ok, wrong
from service.doctor.packages import RUNTIMES
from service.doctor.surroundings import Surroundings

SUFFIX = "ExecutionProvider"
TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"


def check_build(runtime: Any, installed: Mapping[str, str]) -> list[Finding]:
    """Is what is imported what was installed, and which providers does it offer?"""
    name, number = "ONNX Runtime", getattr(runtime, "__version__", "")
    if not number:
        return [_half_there(name)]
    providers = ", ".join(provider.removesuffix(SUFFIX) for provider in runtime.get_available_providers())
    words = f"version {number}, {_describe_cuda(runtime)}; it offers {providers}"
    expected = {installed[wheel] for wheel in RUNTIMES if wheel in installed}
    if not expected or number in {one.partition("+")[0] for one in expected}:
        return [ok(name, words)]
    return [
        wrong(
            name,
            f"{words}; but the wheel that is installed is {' and '.join(sorted(expected))}",
            "files of two versions lie in one folder",
            "uninstall every onnxruntime wheel, remove the folder `onnxruntime` in site-packages, install one again",
        )
    ]


def check_telemetry(surroundings: Surroundings) -> list[Finding]:
    """Does ONNX Runtime report to its maker?"""
    if surroundings.environment.get(TELEMETRY_SWITCH, "1") != "0":
        return [ok("telemetry", "off: ONNX Runtime reports to nobody")]
    return [
        note(
            "telemetry",
            f"{TELEMETRY_SWITCH} is 0",
            "since 1.29 ONNX Runtime tells its maker how it is used, and keeps a device id in the home",
            f"take {TELEMETRY_SWITCH} out of the environment: foldserve then turns it off",
        )
    ]


def cuda_version(runtime: Any) -> str:
    """Give the version of CUDA that the build is for; empty for a build without."""
    return str(getattr(runtime, "cuda_version", "") or "")


def _describe_cuda(runtime: Any) -> str:
    number = cuda_version(runtime)
    return f"built for CUDA {number}" if number else "built for the CPU"


def _half_there(name: str) -> Finding:
    return wrong(
        name,
        "the folder `onnxruntime` is there, but what is in it is not whole",
        "so it is left when one of two onnxruntime wheels was uninstalled",
        "uninstall every onnxruntime wheel, remove the folder `onnxruntime` in site-packages, install one again",
    )
