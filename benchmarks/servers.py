"""A server as it runs: started on its cores, asked until it answers, checked against ONNX Runtime, stopped."""

from __future__ import annotations

import http.client
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import httpx
import numpy as np

from benchmarks.cast import Peer, Stage
from benchmarks.cores import on_cores, server_cores
from benchmarks.dialects import Answer, Headers
from benchmarks.environments import python_of
from benchmarks.errors import PeerFailed, WrongAnswer
from benchmarks.models import BuiltModel
from benchmarks.processes import family, stop
from benchmarks.requests import Requests

START_SECONDS = 60
POLL_SECONDS = 0.002
# Scores are a float32 softmax between 0 and 1: the same arithmetic on another number of threads may end a few units in
# the last place apart, a wrong model is off by percents.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Server:
    """A peer that answers POST on `url`, and how long it took from its start to the first answer."""

    peer: Peer
    pid: int
    url: str
    start_seconds: float


@contextmanager
def running(peer: Peer, built: BuiltModel, first: bytes, *, answer_bytes: int = 0) -> Iterator[Server]:
    """Start a server on its cores, ask it `first` until it answers, and stop it afterwards, with all its processes.

    Raises:
        PeerFailed: it ended, or did not answer in time; says what it wrote last.
    """
    stage, path = Stage(built, _free_port(), answer_bytes), peer.dialect.path_of(built.shape.name)
    command = [python_of(peer.environment), "-m", *peer.command(stage)]
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        with on_cores(server_cores(peer.workers)):
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_for_answer(peer, process, (stage.port, path), first, output)
            seconds = time.perf_counter() - start
            yield Server(peer, process.pid, f"http://127.0.0.1:{stage.port}{path}", seconds)
        finally:
            stop(family(process.pid))
            process.wait()


def answer_length(server: Server, requests: Requests) -> int:
    """The median length of a server's answers, in bytes."""
    with httpx.Client() as client:
        return int(np.median([len(_post(client, server, body).content) for body in requests.bodies]))


def check_answers(server: Server, requests: Requests, *, answer_bytes: int = 0) -> None:
    """Ask a server all requests once. Of a floor's answers only the length can be right.

    Raises:
        WrongAnswer: and says to which request.
    """
    with httpx.Client() as client:
        for number, (body, scores) in enumerate(zip(requests.bodies, requests.scores, strict=True)):
            response = _post(client, server, body)
            if server.peer.is_floor:
                _check_length(server, response, answer_bytes)
            else:
                _check_prediction(server, number, Answer(response.content, response.headers), scores)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for_answer(
    peer: Peer, process: subprocess.Popen[bytes], place: tuple[int, str], first: bytes, output: IO[str]
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(*place, first, peer.dialect.headers):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            output.seek(0)
            what = "ended before it answered" if ended else f"did not answer within {START_SECONDS} s"
            raise PeerFailed(f"{peer.name} {what}: {output.read().strip()[-500:]}")
        time.sleep(POLL_SECONDS)


def _answers(port: int, path: str, body: bytes, headers: Headers) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request("POST", path, body, dict(headers))
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _post(client: httpx.Client, server: Server, body: bytes) -> httpx.Response:
    try:
        response = client.post(server.url, content=body, headers=dict(server.peer.dialect.headers))
    except httpx.HTTPError as err:
        raise PeerFailed(f"{server.peer.name} went away: {err}") from err
    if response.status_code != 200:
        raise WrongAnswer(f"{server.peer.name} answers with status {response.status_code}: {response.text[:200]}")
    return response


def _check_length(server: Server, response: httpx.Response, answer_bytes: int) -> None:
    if len(response.content) != answer_bytes:
        raise WrongAnswer(f"{server.peer.name}: expected {answer_bytes} bytes, got {len(response.content)}")


def _check_prediction(server: Server, number: int, answer: Answer, expected: Any) -> None:
    where = f"{server.peer.name}, request {number}"
    try:
        found = server.peer.dialect.read(answer)
    except (LookupError, TypeError, AttributeError, ValueError) as err:
        raise WrongAnswer(f"{where}: expected a prediction, got {answer.body[:200]!r}") from err
    if found.label not in {None, str(int(expected.argmax()))}:
        raise WrongAnswer(f"{where}: expected label {expected.argmax()}, got {found.label!r}")
    if found.scores.shape != expected.shape or not np.abs(found.scores - expected).max() <= TOLERANCE:
        raise WrongAnswer(f"{where}: expected scores {expected.tolist()}, got {found.scores.tolist()}")
