"""A server that is maltreated, and the question after each fault: is it alive, is it right, is its memory as before?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from tests.faults.wire import ask
from tests.service.exact_models import exact_instances, exact_model, expected_bits, write_exact_bundle
from tests.service.running_server import RunningServer, running_server
from tests.service.tiny_models import Array, TinyModel

MEBIBYTE = 1 << 20
# What the allocator and a thread that was first needed may keep. The faults would take many times as much: 10 MB of
# `[` are half a gigabyte of Python lists, an unpacked bomb is a gigabyte.
MEMORY_BOUND_BYTES = 32 * MEBIBYTE
MEMORY_SECONDS = 3.0  # until what was let go is given back
# A server that stalls stalls for long; a busy machine of two cores may well take some tenths of a second.
HEALTH_SECONDS = 1.0
STACK_TRACE = "Traceback"


@dataclass(frozen=True)
class Standing:
    """A running server, the model that its newest version is, an instance, and the memory it took when all was well."""

    server: RunningServer
    root: Path
    model: TinyModel
    instance: Array
    base_bytes: int

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def pid(self) -> int:
        return self.server.process.pid

    def body(self) -> bytes:
        """A good request of our own protocol."""
        return own_body(self.instance)


@contextmanager
def standing(root: Path, *arguments: str, model: TinyModel | None = None, version: str = "1") -> Iterator[Standing]:
    """Serve one exact model, and note how much memory that takes once everything was used."""
    served = exact_model() if model is None else model
    write_exact_bundle(root, served, version=version)
    with running_server("--models", str(root), "--device", "cpu", *arguments) as server:
        instance = exact_instances(served, 1)[0]
        _use_everything(server, instance)
        yield Standing(server, root, served, instance, memory_bytes(server.process.pid))


def own_body(instance: Array) -> bytes:
    """Write a request of our own protocol."""
    return json.dumps({"instance": instance.tolist()}).encode()


def _use_everything(server: RunningServer, instance: Array) -> None:
    """Load what is loaded when it is first needed: documents, the thread that reads, what explains mistakes."""
    with server.client() as client:
        for path in ("/docs", "/openapi.json", "/metrics", "/nothing"):
            client.get(path)
        for body in (own_body(instance), b"{", b"[" * 100_000, own_body(np.zeros(3))):
            client.post("/predict", content=body)


def memory_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(psutil.Process(pid).memory_info().rss)


def num_files(pid: int) -> int:
    """Open files and connections of a process."""
    return int(psutil.Process(pid).num_fds())


def check_alive_and_right(stand: Standing, *, bound_bytes: int = MEMORY_BOUND_BYTES) -> None:
    """Check health, a prediction's bits, memory, and that nobody wrote a stack trace."""
    check_health(stand.url)
    check_prediction(stand)
    check_memory(stand, bound_bytes)
    check_no_stack_trace("".join(stand.server.err))


def check_no_stack_trace(said: str) -> None:
    """Check that what the server wrote has no stack trace; if it has, show how that ends."""
    _, trace, rest = said.partition(STACK_TRACE)
    if trace:
        raise AssertionError(f"expected no stack trace, the server wrote one that ends in {rest[:20_000][-1500:]}")


def complaints(stand: Standing) -> list[str]:
    """What the server complained of; lines on single requests are no complaints."""
    return [line for line in stand.server.err if line.startswith("foldserve: ")]


def check_health(url: str) -> None:
    """Check that health answers, and soon."""
    for path in ("/health/live", "/health/ready"):
        started = time.perf_counter()
        status = httpx.get(url + path, timeout=10).status_code
        seconds = time.perf_counter() - started
        if status != 200 or seconds > HEALTH_SECONDS:
            raise AssertionError(f"{path}: expected 200 within {HEALTH_SECONDS} s, got {status} after {seconds:.2f} s")


def check_prediction(stand: Standing) -> None:
    """Check that the newest version answers as the oracle does, bit by bit."""
    reply = ask(stand.url, "/models/digits/predict", stand.body())
    if reply.status != 200 or scores_of(reply.document) != expected_bits(stand.model, stand.instance[None]):
        raise AssertionError(f"expected the oracle's bits, got {reply.status} {reply.body[:500]!r}")


def scores_of(document: Any) -> bytes:
    """The bits of an answer of our own protocol."""
    return np.array(document["prediction"]["scores"], np.float32).tobytes()


def check_memory(stand: Standing, bound_bytes: int) -> None:
    """Check that memory comes back to what it was, up to a bound."""
    until = time.perf_counter() + MEMORY_SECONDS
    while (grown := memory_bytes(stand.pid) - stand.base_bytes) > bound_bytes:
        if time.perf_counter() > until:
            raise AssertionError(f"expected at most {bound_bytes >> 20} MiB more than before, got {grown >> 20} MiB")
        time.sleep(0.1)
