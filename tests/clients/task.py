"""What a client script is asked and what it answers: one JSON object on stdin, one on stdout, arrays in base64.

It runs in the client's own environment, where there is numpy and nothing of ours.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Task(NamedTuple):
    """Where the server is, which model to ask, and the instances: float32 [count, *shape of one]."""

    url: str
    grpc: str
    model: str
    version: str
    input: str
    output: str
    instances: Array

    @property
    def address(self) -> str:
        """Host and port, without the scheme."""
        return self.url.removeprefix("http://")


def encode_array(array: Array) -> dict[str, Any]:
    """Write a float32 array as JSON holds it."""
    return {"shape": list(array.shape), "base64": base64.b64encode(array.astype("<f4").tobytes()).decode()}


def decode_array(written: Mapping[str, Any]) -> Array:
    """Read a float32 array back, bit for bit."""
    return np.frombuffer(base64.b64decode(written["base64"]), "<f4").reshape(written["shape"])


def write_task(task: Task) -> str:
    """Write a task for a script's stdin."""
    return json.dumps({**task._asdict(), "instances": encode_array(task.instances)})


def read_task() -> Task:
    """Read the task that stands on stdin."""
    fields = json.load(sys.stdin)
    return Task(**{**fields, "instances": decode_array(fields["instances"])})


def tell(scores: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    """Say what each way of asking gave, and what else was found out."""
    written = {way: encode_array(np.asarray(array, np.float32)) for way, array in scores.items()}
    sys.stdout.write(json.dumps({"scores": written, "facts": dict(facts)}) + "\n")
