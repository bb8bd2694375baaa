"""Triton's own HTTP client, unchanged: all that it can ask of a server for one kind of model."""

from __future__ import annotations

from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.clients.task import Array, Task, read_task, tell


def main() -> None:
    """Ask in every way, and tell."""
    task = read_task()
    client = triton.InferenceServerClient(task.address, concurrency=4)
    try:
        tell(ask(client, task), look(client, task))
    finally:
        client.close()


def ask(client: triton.InferenceServerClient, task: Task) -> dict[str, Array]:
    """Ask for the same instances in all ways that must not differ by a bit."""
    ways: dict[str, tuple[bool, bool, dict[str, Any]]] = {
        "binary in, binary out": (True, True, {}),
        "binary in, JSON out": (True, False, {}),
        "JSON in, binary out": (False, True, {}),
        "JSON in, JSON out": (False, False, {}),
        "of a version": (True, True, {"model_version": task.version}),
        "gzip in": (True, True, {"request_compression_algorithm": "gzip"}),
        "deflate in": (True, True, {"request_compression_algorithm": "deflate"}),
        "gzip out if you can": (True, True, {"response_compression_algorithm": "gzip"}),
        "within a second": (True, True, {"timeout": 1_000_000, "request_id": "42"}),
    }
    answers = {way: infer(client, task, *options) for way, options in ways.items()}
    return answers | {"all outputs": infer_all(client, task), "asynchronously": infer_later(client, task)}


def infer(
    client: triton.InferenceServerClient, task: Task, binary_in: bool, binary_out: bool, options: dict[str, Any]
) -> Array:
    """Ask once."""
    wanted = [triton.InferRequestedOutput(task.output, binary_data=binary_out)]
    return read(client.infer(task.model, [write(task, binary_in)], outputs=wanted, **options), task)


def infer_all(client: triton.InferenceServerClient, task: Task) -> Array:
    """Ask without saying which outputs."""
    return read(client.infer(task.model, [write(task)]), task)


def infer_later(client: triton.InferenceServerClient, task: Task) -> Array:
    """Ask one instance at a time, all at once."""
    asked = [client.async_infer(task.model, [write(task, instances=one[None])]) for one in task.instances]
    return np.concatenate([read(one.get_result(), task) for one in asked])


def write(task: Task, binary: bool = True, instances: Array | None = None) -> triton.InferInput:
    """Write the instances as the client does."""
    given = task.instances if instances is None else instances
    tensor = triton.InferInput(task.input, list(given.shape), "FP32")
    return tensor.set_data_from_numpy(given, binary_data=binary)


def read(result: triton.InferResult, task: Task) -> Array:
    """Read the scores, as the client does."""
    array = result.as_numpy(task.output)
    if array is None:
        raise RuntimeError(f"no output {task.output!r} in {result.get_response()}")
    return np.asarray(array)


def look(client: triton.InferenceServerClient, task: Task) -> dict[str, Any]:
    """Ask what the server says of itself."""
    identified = client.infer(task.model, [write(task)], request_id="42").get_response()
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready(task.model),
        "version ready": client.is_model_ready(task.model, task.version),
        "unknown ready": client.is_model_ready("nobody"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(task.model),
        "config": client.get_model_config(task.model),
        "index": client.get_model_repository_index(),
        "statistics": client.get_inference_statistics(task.model),
        "answered as": {key: identified[key] for key in ("id", "model_name", "model_version")},
        "wrong shape": refusal(client, task, task.instances[:, :1]),
        "unknown model": refusal(client, task._replace(model="nobody"), task.instances),
    }


def refusal(client: triton.InferenceServerClient, task: Task, instances: Array) -> dict[str, str | None]:
    """Ask what must be refused, and give what the client makes of that."""
    try:
        client.infer(task.model, [write(task, instances=np.ascontiguousarray(instances))])
    except InferenceServerException as err:
        return {"status": err.status(), "message": err.message()}
    return {"status": None, "message": None}


if __name__ == "__main__":
    main()
