"""MLServer's codecs and types, unchanged, over plain HTTP: what its own clients do by hand."""

from __future__ import annotations

from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any

import numpy as np
from mlserver.codecs import NumpyCodec, NumpyRequestCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, MetadataServerResponse

from tests.clients.task import Array, Task, read_task, tell

PATIENCE_SECONDS = 30


def main() -> None:
    """Ask in every way, and tell."""
    task = read_task()
    tensor = NumpyCodec.encode_input(task.input, task.instances)
    plain = InferenceRequest(id="42", inputs=[tensor])
    by_codec = NumpyRequestCodec.encode_request(task.instances)
    by_codec.inputs[0].name = task.input  # it names all inputs alike
    scores = {"input codec": infer(task, plain), "request codec": infer(task, by_codec)}
    tell(scores, look(task, plain))


def infer(task: Task, request: InferenceRequest) -> Array:
    """Ask once, and read the answer by the codec."""
    return np.asarray(NumpyCodec.decode_output(post(task, request).outputs[0]), np.float32)


def post(task: Task, request: InferenceRequest) -> InferenceResponse:
    """Post a request as JSON, and read the answer by its type."""
    path, body = f"/v2/models/{task.model}/infer", request.model_dump_json(exclude_none=True)
    return InferenceResponse.model_validate_json(fetch(task, "POST", path, body))


def look(task: Task, request: InferenceRequest) -> dict[str, Any]:
    """Read the documents by MLServer's types, which refuse what they do not know."""
    server = MetadataServerResponse.model_validate_json(fetch(task, "GET", "/v2"))
    model = MetadataModelResponse.model_validate_json(fetch(task, "GET", f"/v2/models/{task.model}"))
    answer = post(task, request)
    return {
        "server": server.model_dump(),
        "model": model.model_dump(exclude_none=True),
        "answered as": {"id": answer.id, "model_name": answer.model_name, "model_version": answer.model_version},
    }


def fetch(task: Task, method: str, path: str, body: str | None = None) -> bytes:
    """Ask over a connection of its own."""
    connection = HTTPConnection(task.address, timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != HTTPStatus.OK:
        raise RuntimeError(f"{method} {path}: {response.status} {content[:500]!r}")
    return content


if __name__ == "__main__":
    main()
