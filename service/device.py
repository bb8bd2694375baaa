"""Finds out whether a GPU can really be used here, because ONNX Runtime goes to the CPU without a word when it can not.

A reason is one plain sentence that names the missing piece and what to do about it. ONNX Runtime's own provider
library must be looked at only *after* a session failed to use it: loaded too early, it never finds its host again.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from pathlib import Path
from typing import Literal

from service.runtime import ort

Device = Literal["auto", "cuda", "cpu"]

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"


def why_no_cuda() -> str:
    """Say why no GPU can be used, as far as that shows before a session is opened; empty if nothing speaks against."""
    if CUDA_PROVIDER not in ort.get_available_providers():
        return "this is ONNX Runtime's CPU build: install foldserve[gpu] instead of foldserve[cpu]"
    return _why_no_driver()


def preload_cuda_libraries() -> None:
    """Load CUDA and cuDNN from the nvidia-* wheels, where they are, without ONNX Runtime's prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()


def why_provider_failed() -> str:
    """Say why ONNX Runtime's CUDA provider did not come up: the first library that it misses, if that is it."""
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    missing = _why_not_loadable(str(library))
    if missing:
        return f"a CUDA library is missing ({missing}): install foldserve[gpu], which brings CUDA and cuDNN along"
    return "ONNX Runtime did not bring up its CUDA provider: is a GPU visible here (nvidia-smi)?"


def _why_no_driver() -> str:
    missing = _why_not_loadable("libcuda.so.1")
    if not missing:
        return ""
    return f"there is no NVIDIA driver ({missing}): install it, or start the container with --gpus all"


def _why_not_loadable(library: str) -> str:
    try:
        ctypes.CDLL(library)
    except OSError as err:
        return str(err).partition(": cannot open")[0] + " can not be loaded"
    return ""
