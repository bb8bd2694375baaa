"""Clients of a soak: each keeps its connection, speaks one protocol after the other, and checks every bit it gets."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

import numpy as np
from numpy.typing import NDArray

MAX_SECONDS_KEPT = 1_000_000
PATIENCE_SECONDS = 30
Instance = NDArray[np.float32]


@dataclass(frozen=True)
class Dialect:
    """How one protocol asks and answers. `read` gives the version that is named, if one is, and the scores' bytes."""

    name: str
    path: str
    headers: dict[str, str]
    write: Callable[[Instance], bytes]
    read: Callable[[Mapping[str, str], bytes], tuple[str | None, bytes]]


class Tally:
    """What all clients saw together; each adds to it under the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_dialect: Counter[str] = Counter()
        self.by_version: Counter[str] = Counter()
        self.problems: list[str] = []
        self.seconds: list[float] = []

    def add(self, dialect: Dialect, version: str | None, seconds: float) -> None:
        """Add an answer that was right."""
        with self.lock:
            self.by_dialect[dialect.name] += 1
            self.by_version[version or "not named"] += 1
            if len(self.seconds) < MAX_SECONDS_KEPT:
                self.seconds.append(seconds)

    def complain(self, problem: str) -> None:
        """Add a request that was lost, refused or answered wrongly."""
        with self.lock:
            self.problems.append(problem)


@dataclass(frozen=True)
class Question:
    """One instance, and the bits that each version answers: versions are added before they are served."""

    instance: Instance
    bits: dict[str, bytes]


class Client(threading.Thread):
    """Asks on and on, at a pace, until it is stopped."""

    def __init__(self, address: str, question: Question, tally: Tally, *, pause_seconds: float) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._question = question
        self._tally = tally
        self._pause_seconds = pause_seconds
        self._bodies = [dialect.write(question.instance) for dialect in DIALECTS]
        self.stopped = threading.Event()

    def run(self) -> None:
        """Ask in all dialects in turn."""
        connection = HTTPConnection(self._address, timeout=PATIENCE_SECONDS)
        number = 0
        while not self.stopped.wait(self._pause_seconds):
            place = number % len(DIALECTS)
            self._ask(connection, DIALECTS[place], self._bodies[place])
            number += 1
        connection.close()

    def _ask(self, connection: HTTPConnection, dialect: Dialect, body: bytes) -> None:
        started = time.perf_counter()
        try:
            connection.request("POST", dialect.path, body, dialect.headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, HTTPException) as err:
            connection.close()
            self._tally.complain(f"{dialect.name}: lost: {err!r}")
            return
        seconds = time.perf_counter() - started
        if response.status != HTTPStatus.OK:
            self._tally.complain(f"{dialect.name}: {response.status} {content[:200]!r}")
            return
        self._check(dialect, *dialect.read(dict(response.headers.items()), content), seconds)

    def _check(self, dialect: Dialect, version: str | None, scores: bytes, seconds: float) -> None:
        known = self._question.bits
        right = scores in list(known.values()) if version is None else known.get(version) == scores
        if right:
            self._tally.add(dialect, version, seconds)
        else:
            self._tally.complain(f"{dialect.name}: the bits are not those of version {version or '(any)'}")


def _bits(scores: object) -> bytes:
    return np.array(scores, np.float32).tobytes()


def _read_own(_: Mapping[str, str], content: bytes) -> tuple[str | None, bytes]:
    answer = json.loads(content)
    return answer["model"]["version"], _bits(answer["prediction"]["scores"])


def _read_tensors(_: Mapping[str, str], content: bytes) -> tuple[str | None, bytes]:
    answer = json.loads(content)
    return answer["model_version"], _bits(answer["outputs"][0]["data"])


def _read_binary(headers: Mapping[str, str], content: bytes) -> tuple[str | None, bytes]:
    length = int(headers["inference-header-content-length"])
    return json.loads(content[:length])["model_version"], content[length:]


def _read_rows(_: Mapping[str, str], content: bytes) -> tuple[str | None, bytes]:
    return None, _bits(json.loads(content)["predictions"][0])


def _write_tensors(instance: Instance) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, instance.size], "data": instance.tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


JSON = {"content-type": "application/json"}
RAW = {"content-type": "application/octet-stream", "inference-header-content-length": "0"}
INFER = "/v2/models/digits/infer"
DIALECTS = (
    Dialect("own", "/predict", JSON, lambda one: json.dumps({"instance": one.tolist()}).encode(), _read_own),
    Dialect("Open Inference, JSON", INFER, JSON, _write_tensors, _read_tensors),
    Dialect(
        "Open Inference, raw", INFER, {"inference-header-content-length": "0"}, lambda one: one.tobytes(), _read_binary
    ),
    Dialect(
        "TensorFlow Serving",
        "/v1/models/digits:predict",
        JSON,
        lambda one: json.dumps({"instances": [one.tolist()]}).encode(),
        _read_rows,
    ),
    Dialect(
        "CSV",
        "/invocations",
        {"content-type": "text/csv"},
        lambda one: (",".join(map(str, one.tolist())) + "\n").encode(),
        _read_rows,
    ),
)
