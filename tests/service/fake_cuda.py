"""A CUDA runtime made of host memory: copies are made as a stream would make them, no GPU is needed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from service.cudart import DEVICE_TO_HOST

STREAM = 77


class FakeFunction:
    """A function of a C library, to which `ctypes` users say its types."""

    def __init__(self, function: Callable[..., int | bytes]) -> None:
        self._function = function
        self.argtypes: Any = None
        self.restype: Any = None

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


class FakeLibrary:
    """What `libcudart.so` exports, as far as it is used.

    Copies to the host are made when the stream is waited for, and not before. `failing` names a function that returns
    an error; `calls` are the names of those that were called; `locked` are the addresses that are page-locked.
    """

    def __init__(self) -> None:
        self.failing = ""
        self.calls: list[str] = []
        self.locked: set[int] = set()
        self.num_bytes_used = 1000
        self._pending: list[tuple[int, int, int]] = []
        functions: dict[str, Callable[..., None]] = {
            "cudaStreamCreateWithFlags": self._create,
            "cudaStreamSynchronize": self._wait,
            "cudaMemcpyAsync": self._copy,
            "cudaHostRegister": self._register,
            "cudaHostUnregister": self._unregister,
            "cudaMemGetInfo": self._memory,
        }
        for name, function in functions.items():
            setattr(self, name, FakeFunction(self._watched(name, function)))
        self.cudaGetErrorString = FakeFunction(lambda code: f"error {code} of the fake".encode())

    def _watched(self, name: str, function: Callable[..., None]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == self.failing:
                return 700
            function(*arguments)
            return 0

        return call

    def _create(self, handle: Any, _flags: int) -> None:
        handle._obj.value = STREAM

    def _copy(self, to: int, source: int, num_bytes: int, kind: int, stream: int) -> None:
        assert stream == STREAM
        if kind == DEVICE_TO_HOST:
            self._pending.append((to, source, num_bytes))
        else:
            ctypes.memmove(to, source, num_bytes)

    def _wait(self, stream: int) -> None:
        assert stream == STREAM
        for copy in self._pending:
            ctypes.memmove(*copy)
        self._pending.clear()

    def _register(self, address: int, _num_bytes: int, _flags: int) -> None:
        assert address % 4096 == 0
        self.locked.add(address)

    def _unregister(self, address: int) -> None:
        self.locked.remove(address)

    def _memory(self, free: Any, total: Any) -> None:
        free._obj.value, total._obj.value = 10_000 - self.num_bytes_used, 10_000
