"""The four ways to send one instance as JSON, so that each fault of a body can be sent by all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.service.tiny_models import Array


@dataclass(frozen=True)
class JsonProtocol:
    """Where it is spoken, how values [1, …] are written in it, and the status of values that do not fit."""

    name: str
    path: str
    write: Callable[[Any], Any]
    misfit: int = 400

    def body(self, values: Any) -> bytes:
        """Write a request for the values of one instance."""
        return json.dumps(self.write(values)).encode()

    def good(self, instance: Array) -> bytes:
        """Write a good request."""
        return self.body(instance.tolist())

    def with_text(self, instance: Array, text: str) -> bytes:
        """Write a request whose first value is this text, be it JSON or not."""
        values = ["@", *instance.ravel().tolist()[1:]]
        return self.body(values).replace(b'"@"', text.encode())

    def __str__(self) -> str:
        return self.name


def write_tensor(values: Any, *, name: str = "x", datatype: str = "FP32", shape: Any = None) -> dict[str, Any]:
    """Write one tensor of the Open Inference Protocol."""
    count = np.size(np.array(values, dtype=object)) if shape is None else 0
    return {"name": name, "datatype": datatype, "shape": [1, count] if shape is None else shape, "data": values}


OWN = JsonProtocol("own", "/predict", lambda values: {"instance": values}, misfit=422)
OPEN_INFERENCE = JsonProtocol(
    "open inference", "/v2/models/digits/infer", lambda values: {"inputs": [write_tensor(values, shape=[1, 64])]}
)
TENSORFLOW = JsonProtocol("tensorflow", "/v1/models/digits:predict", lambda values: {"instances": [values]})
INVOCATIONS = JsonProtocol("invocations", "/invocations", lambda values: {"instances": [values]})
ALL = (OWN, OPEN_INFERENCE, TENSORFLOW, INVOCATIONS)
