"""A peer as a running process: started on its core, waited for, checked against ONNX Runtime, stopped."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from benchmarks.cores import on_core
from benchmarks.errors import PeerFailed, WrongAnswer
from benchmarks.models import BuiltModel
from benchmarks.requests import Requests

FLOOR, TUTORIAL, TUTORIAL_ONE_THREAD, FOLDSERVE = "floor", "tutorial", "tutorial-1", "foldserve"
PEERS = (FLOOR, TUTORIAL, TUTORIAL_ONE_THREAD, FOLDSERVE)
START_SECONDS = 60
STOP_SECONDS = 30
# Scores are a float32 softmax between 0 and 1: the same arithmetic on another number of threads may end a few units in
# the last place apart, a wrong model is off by percents.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Server:
    """A peer that answers POST on `url`."""

    peer: str
    process: subprocess.Popen[str]
    url: str


def command_of(peer: str, built: BuiltModel, answer_bytes: int) -> list[str]:
    """How a peer is started for this model; only the floor needs to know how long an answer is."""
    return {
        FLOOR: ["benchmarks.peers.floor", str(answer_bytes)],
        TUTORIAL: ["benchmarks.peers.tutorial", str(built.bundle.model_path)],
        TUTORIAL_ONE_THREAD: ["benchmarks.peers.tutorial", str(built.bundle.model_path), "1"],
        FOLDSERVE: ["service", "--models", str(built.bundle.directory), "--device", "cpu", "--port", "0"],
    }[peer]


@contextmanager
def running(peer: str, module_and_arguments: Sequence[str], *, core: int | None = None) -> Iterator[Server]:
    """Start `python -m …`, wait until it listens, and stop it afterwards."""
    with on_core(core):
        process = subprocess.Popen(
            [sys.executable, "-m", *module_and_arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    try:
        yield Server(peer, process, f"{_wait_for_address(peer, process)}/predict")
    finally:
        process.terminate()
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def answer_length(server: Server, requests: Requests) -> int:
    """The median length of a server's answers, in bytes."""
    with httpx.Client() as client:
        return int(np.median([len(_post(client, server, body).content) for body in requests.bodies]))


def check_answers(server: Server, requests: Requests, *, answer_bytes: int) -> None:
    """Ask a server all requests once. Of the floor's answers only the length can be right.

    Raises:
        WrongAnswer: and says to which request.
    """
    with httpx.Client() as client:
        for number, (body, scores) in enumerate(zip(requests.bodies, requests.scores, strict=True)):
            response = _post(client, server, body)
            if server.peer == FLOOR:
                _check_length(server, response, answer_bytes)
            else:
                _check_prediction(server, number, response.json(), scores)


def _wait_for_address(peer: str, process: subprocess.Popen[str]) -> str:
    """Read what the server says until it says where it listens."""
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        for line in process.stdout or ():
            found = re.search(r"listening on (http://[^\s,]+)", line)
            if found:
                return found.group(1)
    finally:
        watchdog.cancel()
    errors = process.stderr.read().strip() if process.stderr else ""
    raise PeerFailed(f"{peer} did not start within {START_SECONDS} s: {errors[-500:]}")


def _post(client: httpx.Client, server: Server, body: bytes) -> httpx.Response:
    try:
        response = client.post(server.url, content=body, headers={"content-type": "application/json"})
    except httpx.HTTPError as err:
        raise PeerFailed(f"{server.peer} went away: {err}") from err
    if response.status_code != 200:
        raise WrongAnswer(f"{server.peer} answers with status {response.status_code}: {response.text[:200]}")
    return response


def _check_length(server: Server, response: httpx.Response, answer_bytes: int) -> None:
    if len(response.content) != answer_bytes:
        raise WrongAnswer(f"{server.peer}: expected {answer_bytes} bytes, got {len(response.content)}")


def _check_prediction(server: Server, number: int, answer: dict[str, Any], expected: Any) -> None:
    prediction = answer.get("prediction", answer)
    label, scores = prediction["label"], np.asarray(prediction["scores"], dtype=np.float64)
    if label != str(int(expected.argmax())):
        raise WrongAnswer(f"{server.peer}, request {number}: expected label {expected.argmax()}, got {label!r}")
    if scores.shape != expected.shape or not np.abs(scores - expected).max() <= TOLERANCE:
        raise WrongAnswer(
            f"{server.peer}, request {number}: expected scores {expected.tolist()}, got {scores.tolist()}"
        )
