"""The floor under every way on a GPU: an empty CUDA graph, launched between the copies there and back.

Called by ctypes, as the service does: nothing that Python launches on a GPU and waits for can be faster.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_int, c_size_t, c_ulonglong, c_void_p
from typing import Any

import torch

HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2  # cudaMemcpyKind


def prepare_floor(num_bytes_there: int, num_bytes_back: int) -> Callable[[], None]:
    """Make the floor ready for instances and answers of so many bytes.

    Raises:
        RuntimeError: a call of CUDA failed.
    """
    library = ctypes.CDLL(f"libcudart.so.{str(torch.version.cuda).split('.', maxsplit=1)[0]}")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    pinned = [torch.zeros(size, dtype=torch.uint8, pin_memory=True) for size in (num_bytes_there, num_bytes_back)]
    there = [torch.zeros_like(one, device="cuda") for one in pinned]
    graph = _instantiate_nothing(library)
    pointers = [c_void_p(one.data_ptr()) for one in (*pinned, *there)]
    host_in, host_out, device_in, device_out = pointers
    sizes, handle = [c_size_t(num_bytes_there), c_size_t(num_bytes_back)], c_void_p(stream.cuda_stream)
    copy, launch, wait = library.cudaMemcpyAsync, library.cudaGraphLaunch, library.cudaStreamSynchronize

    def run(_kept: object = (pinned, there, stream)) -> None:
        _check(copy(device_in, host_in, sizes[0], c_int(HOST_TO_DEVICE), handle))
        _check(launch(graph, handle))
        _check(copy(host_out, device_out, sizes[1], c_int(DEVICE_TO_HOST), handle))
        _check(wait(handle))

    run()
    return run


def _instantiate_nothing(library: Any) -> c_void_p:
    graph, executable = c_void_p(), c_void_p()
    _check(library.cudaGraphCreate(byref(graph), 0))
    _check(library.cudaGraphInstantiateWithFlags(byref(executable), graph, c_ulonglong(0)))
    return executable


def _check(code: int) -> None:
    if code:
        raise RuntimeError(f"CUDA error {code}")
