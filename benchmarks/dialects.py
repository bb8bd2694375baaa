"""How a server is asked and how it answers: where, with which headers, in which JSON or which bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

Instance = NDArray[np.float32]
Scores = NDArray[np.float64]
Headers = tuple[tuple[str, str], ...]

JSON: Headers = (("Content-Type", "application/json"),)
# The body begins with so many bytes of JSON: none, it is an instance and nothing else.
LENGTH_OF_JSON = "Inference-Header-Content-Length"
BYTES: Headers = (("Content-Type", "application/octet-stream"), (LENGTH_OF_JSON, "0"))


class Answer(NamedTuple):
    """What came back with status 200; its headers are found by their names in lower case."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Prediction:
    """What an answer says: scores, float64 [labels], and the label, where the server names one."""

    label: str | None
    scores: Scores


@dataclass(frozen=True)
class Dialect:
    """Where requests go (`path` may have the {model}), how one is written and how an answer is read.

    What `read` can not read is a LookupError, a TypeError, an AttributeError or a ValueError.
    """

    path: str
    write: Callable[[Instance], bytes]
    read: Callable[[Answer], Prediction]
    headers: Headers = JSON

    def path_of(self, model: str) -> str:
        """Where a model of this name is asked."""
        return self.path.format(model=model)


def write_plain(instance: Instance) -> bytes:
    """Write one instance as a client would: each number as the shortest text that reads back to the same bits."""
    return _dumps({"instance": np.ascontiguousarray(instance.ravel())})


def read_plain(answer: Answer) -> Prediction:
    """Ours is wrapped with the model's name; the others' are not."""
    said = orjson.loads(answer.body)
    prediction = said.get("prediction", said)
    return Prediction(prediction["label"], _scores(prediction["scores"]))


def write_v2(instance: Instance) -> bytes:
    """Write one instance as a tensor of the Open Inference Protocol, its numbers as a flat list."""
    data, shape = np.ascontiguousarray(instance.ravel()), [1, *instance.shape]
    return _dumps({"inputs": [{"name": "instance", "shape": shape, "datatype": "FP32", "data": data}]})


def read_v2(answer: Answer) -> Prediction:
    """Find the scores among the outputs."""
    outputs = {output["name"]: output for output in orjson.loads(answer.body)["outputs"]}
    return Prediction(None, _scores(outputs["scores"]["data"]))


def write_bytes(instance: Instance) -> bytes:
    """Write one instance as its bytes, little-endian, in row-major order."""
    return instance.astype("<f4").tobytes()


def read_bytes(answer: Answer) -> Prediction:
    """Find the scores among the outputs' bytes: JSON stands in front of them and says how many each has."""
    start = int(answer.headers[LENGTH_OF_JSON.lower()])
    outputs = orjson.loads(answer.body[:start])["outputs"]
    ends = list(accumulate((output["parameters"]["binary_data_size"] for output in outputs), initial=start))
    if ends[-1] != len(answer.body):
        raise ValueError(f"expected an answer of {ends[-1]} bytes, got {len(answer.body)}")
    place = [output["name"] for output in outputs].index("scores")
    return Prediction(None, _scores(np.frombuffer(answer.body[ends[place] : ends[place + 1]], "<f4")))


def write_rows(instance: Instance) -> bytes:
    """Write one instance as TensorFlow Serving's clients do, nested as its shape is."""
    return _dumps({"instances": np.ascontiguousarray(instance[np.newaxis])})


def read_rows(answer: Answer) -> Prediction:
    """Find the scores in the only row."""
    (row,) = orjson.loads(answer.body)["predictions"]
    return Prediction(None, _scores(row["scores"]))


def _scores(values: Any) -> Scores:
    return np.asarray(values, dtype=np.float64)


def _dumps(request: dict[str, Any]) -> bytes:
    return orjson.dumps(request, option=orjson.OPT_SERIALIZE_NUMPY)


PLAIN = Dialect("/predict", write_plain, read_plain)
MOSEC = Dialect("/inference", write_plain, read_plain)
V2 = Dialect("/v2/models/model/infer", write_v2, read_v2)  # MLServer's model is named so
OPEN_INFERENCE = Dialect("/v2/models/{model}/infer", write_v2, read_v2)
OPEN_INFERENCE_RAW = Dialect("/v2/models/{model}/infer", write_bytes, read_bytes, BYTES)
TENSORFLOW = Dialect("/v1/models/{model}:predict", write_rows, read_rows)
