"""How a server is asked and how it answers: all in JSON, but MLServer has a protocol of its own (V2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

Instance = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What an answer says: scores, float64 [labels], and the label, where the server names one."""

    label: str | None
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Dialect:
    """Where requests go, how one is written, how an answer is read (KeyError, TypeError: it says something else)."""

    path: str
    write: Callable[[Instance], bytes]
    read: Callable[[Any], Prediction]


def write_plain(instance: Instance) -> bytes:
    """Write one instance as a client would: each number as the shortest text that reads back to the same bits."""
    return _dumps({"instance": np.ascontiguousarray(instance.ravel())})


def read_plain(answer: dict[str, Any]) -> Prediction:
    """Ours is wrapped with the model's name; the others' are not."""
    prediction = answer.get("prediction", answer)
    return Prediction(prediction["label"], np.asarray(prediction["scores"], dtype=np.float64))


def write_v2(instance: Instance) -> bytes:
    """Write one instance in the V2 protocol."""
    data = np.ascontiguousarray(instance.ravel())
    return _dumps({"inputs": [{"name": "instance", "shape": [1, data.size], "datatype": "FP32", "data": data}]})


def read_v2(answer: dict[str, Any]) -> Prediction:
    """Find the scores among the outputs."""
    outputs = {output["name"]: output for output in answer["outputs"]}
    return Prediction(None, np.asarray(outputs["scores"]["data"], dtype=np.float64))


def _dumps(request: dict[str, Any]) -> bytes:
    return orjson.dumps(request, option=orjson.OPT_SERIALIZE_NUMPY)


PLAIN = Dialect("/predict", write_plain, read_plain)
MOSEC = Dialect("/inference", write_plain, read_plain)
V2 = Dialect("/v2/models/model/infer", write_v2, read_v2)
