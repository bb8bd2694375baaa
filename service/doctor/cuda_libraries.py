"""Which of CUDA's libraries ONNX Runtime's CUDA provider needs, where each is found, and which are missing.

The loader's own message names the first that is missing and no more, so the provider is asked for all that it is linked
with (`ldd`), and each is loaded by itself, after those of the nvidia-* wheels, as a session would. All this is done in
another process (`apart.py`): a provider that was loaded without a session never finds its host again.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from service.doctor.finding import Finding, note, ok
from service.doctor.gpu_hardware import Severity
from service.doctor.surroundings import Surroundings

NAME = "CUDA libraries"
LINKED = re.compile(r"^\s*(lib(?:cu|nv)[\w.+-]+)", re.MULTILINE)
FIRST_MISSING = re.compile(r"^(\S+): cannot open shared object file")
OF_THE_DRIVER = {"libcuda.so.1", "libnvidia-ml.so.1"}
CUDNN = "libcudnn.so.9"
OF_WHEELS = re.compile(r"nvidia-(?:cublas|cuda-runtime|cudnn|curand|cufft)(?:-cu(\d+))?")
PATIENCE_SECONDS = 60


def list_needed(provider: Path, ldd: str | None = shutil.which("ldd")) -> tuple[str, ...]:
    """List the CUDA libraries that a provider is linked with; where there is no ldd, the first that is missing."""
    if ldd is None:
        return _first_missing(provider)
    answer = subprocess.run(
        [ldd, str(provider)], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, errors="replace"
    )
    return tuple(name for name in dict.fromkeys(LINKED.findall(answer.stdout)) if name not in OF_THE_DRIVER)


def locate(name: str, surroundings: Surroundings) -> str:
    """Load a library, and give the path that it was loaded from; empty if it can not be."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return ""
    mapped = re.search(
        rf"(/\S*/{re.escape(name)}\S*)$", surroundings.read(surroundings.proc / "self/maps"), re.MULTILINE
    )
    return mapped[1] if mapped else "somewhere"


def check_libraries(
    needed: tuple[str, ...],
    find: Callable[[str], str],
    installed: Mapping[str, str],
    cuda: str,
    severity: Severity,
) -> list[Finding]:
    """Are all there that the provider needs, and cuDNN, which it loads when a model has a convolution?"""
    places = {name: find(name) for name in needed}
    missing = [name for name, place in places.items() if not place]
    if missing:
        step = "pip install 'foldserve[gpu]' brings CUDA and cuDNN along; else let LD_LIBRARY_PATH name their folder"
        return [
            severity(
                NAME,
                f"missing: {', '.join(missing)}{_describe_wheels(installed)}",
                f"ONNX Runtime can not load its provider for CUDA {cuda}, and would compute on the CPU",
                step,
            )
        ]
    folders = sorted({str(Path(place).parent) for place in places.values()})
    found = ok(NAME, f"{', '.join(needed) or 'none are linked'}; from {', '.join(folders) or 'nowhere'}")
    return [found, *([] if CUDNN in needed else _check_cudnn(find))]


def _check_cudnn(find: Callable[[str], str]) -> list[Finding]:
    place = find(CUDNN)
    if place:
        return [ok("cuDNN", f"{CUDNN} from {Path(place).parent}")]
    step = "pip install nvidia-cudnn-cu13, for CUDA 13; or foldserve[gpu]"
    return [note("cuDNN", f"{CUDNN} can not be loaded", "models with convolutions do not run on the GPU", step)]


def _describe_wheels(installed: Mapping[str, str]) -> str:
    """Name the nvidia-* wheels that are there: most often they are those of another CUDA."""
    wheels = [f"{name} {number}" for name, number in sorted(installed.items()) if OF_WHEELS.fullmatch(name)]
    return (
        f" (of NVIDIA's wheels there are {', '.join(wheels)})" if wheels else " (none of NVIDIA's wheels is installed)"
    )


def _first_missing(provider: Path) -> tuple[str, ...]:
    try:
        ctypes.CDLL(str(provider))
    except OSError as err:
        found = FIRST_MISSING.match(str(err))
        return (found[1],) if found and found[1] not in OF_THE_DRIVER else ()
    return ()
