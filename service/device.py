"""Finds out whether a GPU can really be used here, because ONNX Runtime goes to the CPU without a word when it can not.

A reason is one plain sentence that names the missing piece and what to do about it. ONNX Runtime's own provider
library must be looked at only *after* a session failed to use it: loaded too early, it never finds its host again.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.runtime import ort

Device = Literal["auto", "cuda", "cpu"]
# What a server can be asked for: `fastest` measures CPU and GPU at start, `tensorrt` compiles the model for the GPU.
ServingDevice = Literal["auto", "cuda", "cpu", "fastest", "tensorrt"]

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
# Those that ONNX Runtime 1.31 is linked with, in the order in which they need one another.
TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")


@dataclass(frozen=True, kw_only=True)
class GpuOptions:
    """How a GPU is used, where one is.

    tf32: let it round the inputs of products to 10 bits, which is faster, and parts its answers from the CPU's in the
        fourth digit.
    graphs: capture a CUDA graph for each size of batch, and replay it.
    staged: copy by way of page-locked memory, on a stream of the session's own; else by ONNX Runtime's blocking copies.
    engine_cache: where TensorRT keeps what it compiled; None compiles anew at each start.
    largest_batch: the largest batch that TensorRT compiles for.
    precision: what the model was exported in, which TensorRT is allowed to compute in; float32 is computed in float32.
    """

    tf32: bool = False
    graphs: bool = True
    staged: bool = True
    engine_cache: Path | None = None
    largest_batch: int = 32
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"


AS_USUAL = GpuOptions()


def why_no_cuda() -> str:
    """Say why no GPU can be used, as far as that shows before a session is opened; empty if nothing speaks against."""
    if CUDA_PROVIDER not in ort.get_available_providers():
        return "this is ONNX Runtime's CPU build: install foldserve[gpu] instead of foldserve[cpu]"
    return _why_no_driver()


def preload_cuda_libraries() -> None:
    """Load CUDA and cuDNN from the nvidia-* wheels, where they are, without ONNX Runtime's prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()


def why_no_tensorrt() -> str:
    """Say why TensorRT can not be used, as far as that shows before a session is opened."""
    if TENSORRT_PROVIDER not in ort.get_available_providers():
        return "this ONNX Runtime has no TensorRT in it: install foldserve[gpu]"
    preload_cuda_libraries()
    preload_tensorrt_libraries()
    missing = _why_not_loadable(TENSORRT_LIBRARIES[0])
    if missing:
        return f"TensorRT is missing ({missing}): pip install 'tensorrt-cu13<11', or take --device cuda"
    return _why_no_driver()


def preload_tensorrt_libraries() -> None:
    """Load TensorRT from its wheel, where it is; what can not be loaded shows when it is asked for by name."""
    found = importlib.util.find_spec("tensorrt_libs")
    for folder in (found.submodule_search_locations or ()) if found else ():
        for library in TENSORRT_LIBRARIES:
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(Path(folder) / library), mode=ctypes.RTLD_GLOBAL)


def why_provider_failed(provider: str = CUDA_PROVIDER) -> str:
    """Say why ONNX Runtime's provider did not come up: the first library that it misses, if that is it."""
    name = {CUDA_PROVIDER: "cuda", TENSORRT_PROVIDER: "tensorrt"}[provider]
    missing = _why_not_loadable(str(Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"))
    if missing:
        return f"a CUDA library is missing ({missing}): install foldserve[gpu], which brings CUDA and cuDNN along"
    return f"ONNX Runtime did not bring up its {provider}: is a GPU visible here (nvidia-smi)?"


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
