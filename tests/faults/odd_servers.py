"""Servers in odd surroundings: another user, nowhere to write, few files, a clock that jumps, a stdout nobody reads.

Here stdout is no place to learn the address from, so the port is chosen before, and health says when it is up.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import httpx
import psutil

START_SECONDS = 60
STOP_SECONDS = 40


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """What is odd: the program around the server, a module in its place, its environment, stdout, limits.

    A program around it that `forks` has the server as its child, and does not end on SIGTERM itself.
    """

    around: Sequence[str] = ()
    forks: bool = False
    module: str = "service"
    environment: dict[str, str] = field(default_factory=dict)
    stdout: int | IO[Any] | None = None
    stderr: int | IO[Any] | None = None
    max_files: int | None = None


@dataclass
class OddServer:
    """The process and its address; `err` is a file that takes what it writes to stderr."""

    process: subprocess.Popen[bytes]
    url: str
    err: IO[bytes]

    def complaints(self) -> str:
        """All that it has written to stderr, unless that is odd."""
        self.err.seek(0)
        return self.err.read().decode()


@contextmanager
def odd_server(oddity: Oddity, *arguments: str) -> Iterator[OddServer]:
    """Start a server as odd as that, wait until it is ready, and stop it afterwards."""
    port = _free_port()
    command = [*oddity.around, sys.executable, "-m", oddity.module, "--port", str(port), "--device", "cpu", *arguments]
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL if oddity.stdout is None else oddity.stdout,
            stderr=err if oddity.stderr is None else oddity.stderr,
            env={**os.environ, **oddity.environment},
            preexec_fn=_limit(oddity.max_files),  # noqa: PLW1509 - this process has no threads that hold locks yet
        )
        server = OddServer(process, f"http://127.0.0.1:{port}", err)
        try:
            _wait(server)
            yield server
        finally:
            _stop(process, oddity)


def _stop(process: subprocess.Popen[bytes], oddity: Oddity) -> None:
    """Ask the server itself to end; what does not is killed, and that is a failure."""
    children = psutil.Process(process.pid).children() if oddity.forks and process.poll() is None else []
    for pid in [child.pid for child in children] or [process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for child in children:
            child.kill()
        process.kill()
        raise


def _limit(max_files: int | None) -> Callable[[], None] | None:
    if max_files is None:
        return None
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(server: OddServer) -> None:
    until = time.perf_counter() + START_SECONDS
    while not _is_ready(server.url):
        if server.process.poll() is not None or time.perf_counter() > until:
            raise RuntimeError(f"the server did not start: {server.complaints()[-2000:]}")
        time.sleep(0.05)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
