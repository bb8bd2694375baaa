"""The few calls of the CUDA runtime that ONNX Runtime's Python does not offer: streams, copies on them, pinned memory.

A copy from or to page-locked memory needs no second copy and no waiting; on the stream that the session computes on it
keeps its place in the order, so the host waits once, at the end. It is the runtime library that ONNX Runtime itself has
loaded, called by ctypes: its C interface is the same since CUDA 4 (CUDA Runtime API, sections 6.4, 6.9).
"""

from __future__ import annotations

import ctypes
import math
import weakref
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import DeviceUnavailable
from service.runtime import ort

KNOWN_MAJORS = ("13", "12")
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2  # cudaMemcpyKind
NON_BLOCKING = 1  # cudaStreamNonBlocking: it does not wait for the default stream
PAGE = 4096

SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaStreamCreateWithFlags": (POINTER(c_void_p), c_uint),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaHostRegister": (c_void_p, c_size_t, c_uint),
    "cudaHostUnregister": (c_void_p,),
    "cudaMemGetInfo": (POINTER(c_size_t), POINTER(c_size_t)),
}


class CudaRuntime:
    """The calls, each checked: what fails is a `DeviceUnavailable` that says which call and why."""

    def __init__(self, library: Any) -> None:
        self._library = library
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, c_int
        library.cudaGetErrorString.argtypes, library.cudaGetErrorString.restype = (c_int,), c_char_p

    def create_stream(self) -> int:
        """Create a stream, and give its handle. It lives as long as the process: a session may outlive its maker."""
        handle = c_void_p()
        self._check("cudaStreamCreateWithFlags", byref(handle), NON_BLOCKING)
        return int(handle.value or 0)

    def copy_to_device(self, device: int, host: int, num_bytes: int, stream: int) -> None:
        """Put a copy on the stream. The host memory must stay as it is until the stream has been waited for."""
        self._check("cudaMemcpyAsync", device, host, num_bytes, HOST_TO_DEVICE, stream)

    def copy_to_host(self, host: int, device: int, num_bytes: int, stream: int) -> None:
        """Put a copy on the stream; it has happened when the stream has been waited for."""
        self._check("cudaMemcpyAsync", host, device, num_bytes, DEVICE_TO_HOST, stream)

    def wait_for(self, stream: int) -> None:
        """Wait until all on the stream is done; an error of anything on it shows here."""
        self._check("cudaStreamSynchronize", stream)

    def page_locked(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Give an array of zeros whose memory stays where it is, for the GPU to copy from and to."""
        memory, array = _whole_pages(shape, dtype)
        address = array.ctypes.data
        self._check("cudaHostRegister", address, array.nbytes, 0)
        # Views keep the memory alive, not the array: only when it goes, the lock does.
        weakref.finalize(memory, self._library.cudaHostUnregister, address).atexit = False
        return array

    def num_bytes_used(self) -> int:
        """Count the bytes of the GPU's memory that are taken, by whomever: CUDA does not tell processes apart."""
        free, total = c_size_t(), c_size_t()
        self._check("cudaMemGetInfo", byref(free), byref(total))
        return total.value - free.value

    def _check(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            words = self._library.cudaGetErrorString(code) or b"unknown"
            raise DeviceUnavailable(f"{name} failed: {words.decode()} (CUDA error {code})")


def find_cuda_runtime() -> CudaRuntime | None:
    """Find the library that ONNX Runtime has loaded; None where there is none, or one that lacks a call."""
    major = str(getattr(ort, "cuda_version", "") or "").split(".", maxsplit=1)[0]
    for candidate in dict.fromkeys((major, *KNOWN_MAJORS)):
        try:
            return CudaRuntime(ctypes.CDLL(f"libcudart.so.{candidate}"))
        except (OSError, AttributeError):
            continue
    return None


def _whole_pages(shape: tuple[int, ...], dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give memory, and an array of zeros in it that has its pages to itself: locking goes by whole pages."""
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(num_bytes + 2 * PAGE, np.uint8)
    start = -memory.ctypes.data % PAGE
    return memory, memory[start : start + num_bytes].view(dtype).reshape(shape)
