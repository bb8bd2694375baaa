"""A real server in a process of its own, on a free port: what the end-to-end tests talk to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

START_SECONDS = 60


@dataclass
class RunningServer:
    """The process, what it has printed so far, and its address."""

    process: subprocess.Popen[str]
    url: str = ""
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    def client(self) -> httpx.Client:
        """Open a client; close it after use."""
        return httpx.Client(base_url=self.url, timeout=30)


@contextmanager
def running_server(
    *arguments: str, environment: dict[str, str] | None = None, command: tuple[str, ...] = ("-m", "service")
) -> Iterator[RunningServer]:
    """Start `python -m service` on a free port, and stop it afterwards; `environment` adds to ours."""
    words = [sys.executable, "-W", "error", *command, *arguments, "--port", "0"]
    everything = {**os.environ, "PYTHONPATH": str(Path.cwd()), **(environment or {})}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=everything)
    server = RunningServer(process)
    listening = threading.Event()
    readers = [
        threading.Thread(target=_collect, args=(process.stdout, server.out, listening)),
        threading.Thread(target=_collect, args=(process.stderr, server.err, listening)),
    ]
    for reader in readers:
        reader.start()
    try:
        _wait_for_address(server, listening)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=60)
        for reader in readers:
            reader.join()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def run_and_fail(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Start `python -m service` where it should refuse to start."""
    command = [sys.executable, "-m", "service", "--port", "0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False)


def _wait_for_address(server: RunningServer, listening: threading.Event) -> None:
    for _ in range(START_SECONDS * 10):
        if listening.wait(0.1):
            break
        if server.process.poll() is not None:
            break
    found = re.search(r"listening on (http://\S+),", "".join(server.out))
    if found is None:
        raise RuntimeError(f"the server did not start: {server.out} {server.err}")
    server.url = found.group(1)


def _collect(stream: object, lines: list[str], listening: threading.Event) -> None:
    for line in stream:  # type: ignore[attr-defined]
        lines.append(line)
        if line.startswith("try: "):
            listening.set()


def wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that comes about by itself, if it does.

    Raises:
        TimeoutError: it has not.
    """
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"it has not come about in {seconds:g} s")
        time.sleep(0.05)
