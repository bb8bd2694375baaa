"""The whole service on the GPU, by one connection, beside a server that does nothing: what is left of it all.

One client in Python with one keep-alive connection, the same for both, so that what it costs itself is in both.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.errors import PeerFailed
from benchmarks.gpu_timing import Timing, take_turns
from benchmarks.gpu_ways import Array

START_SECONDS = 120  # TensorRT or a large model may take its time
ANSWER_BYTES = 200


def time_service(
    model_path: Path, instance: Array, *, device: str = "cuda", rounds: int = 5, seconds: float = 0.5
) -> dict[str, Timing]:
    """Time requests of one instance: `service`, and `floor`, which reads as much and answers as much.

    Raises:
        PeerFailed: a server did not start, or answered otherwise than with 200.
    """
    body = json.dumps({"instance": [round(value, 5) for value in instance.ravel().tolist()]}).encode()
    commands = {
        "service": ["service", "--models", str(model_path), "--device", device, "--port"],
        "floor": ["benchmarks.peers.floor", str(ANSWER_BYTES)],
    }
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(_running(command, body)) for name, command in commands.items()}
        posts = {name: stack.enter_context(_connected(port, body)) for name, port in ports.items()}
        return take_turns(posts, rounds=rounds, seconds=seconds)


@contextlib.contextmanager
def _connected(port: int, body: bytes) -> Iterator[Callable[[], bytes]]:
    """Open one keep-alive connection, and give what posts the body by it and reads the answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)) as connection:
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def post() -> bytes:
            connection.request("POST", "/predict", body, {"content-type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                raise PeerFailed(f"expected status 200, got {response.status}: {answer[:300]!r}")
            return answer

        yield post


@contextlib.contextmanager
def _running(command: list[str], body: bytes) -> Iterator[int]:
    """Start a server, whose port comes last but for the floor's parser, and give the port when it answers."""
    port = _free_port()
    parser = ["httptools"] if command[0].endswith("floor") else []
    with tempfile.TemporaryFile("w+") as output:
        full = [sys.executable, "-m", *command, str(port), *parser]
        process = subprocess.Popen(full, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_for_answer(process, port, body)
            yield port
        except PeerFailed as err:
            output.seek(0)
            raise PeerFailed(f"{command[0]}: {err}; it wrote: {output.read().strip()[-500:]}") from err
        finally:
            process.terminate()
            process.wait()


def _wait_for_answer(process: subprocess.Popen[bytes], port: int, body: bytes) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException), _connected(port, body) as post:
            post()
            return
        time.sleep(0.02)
    raise PeerFailed(f"it did not answer within {START_SECONDS} s")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
