"""Triton's own gRPC client, unchanged: all that it can ask of a server for one kind of model."""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.clients.task import Array, Task, read_task, tell


def main() -> None:
    """Ask in every way, and tell."""
    task = read_task()
    with triton.InferenceServerClient(task.grpc) as client:
        tell(ask(client, task), look(client, task))


def ask(client: triton.InferenceServerClient, task: Task) -> dict[str, Array]:
    """Ask for the same instances in all ways that must not differ by a bit."""
    return {
        "raw": infer(client, task),
        "of a version": infer(client, task, model_version=task.version),
        "one output": infer(client, task, outputs=[triton.InferRequestedOutput(task.output)]),
        "within a second": infer(client, task, client_timeout=1.0, request_id="42"),
        "gzip": infer(client, task, compression_algorithm="gzip"),
        "asynchronously": infer_later(client, task),
    }


def infer(client: triton.InferenceServerClient, task: Task, **options: Any) -> Array:
    """Ask once."""
    return np.asarray(client.infer(task.model, [write(task, task.instances)], **options).as_numpy(task.output))


def infer_later(client: triton.InferenceServerClient, task: Task) -> Array:
    """Ask one instance at a time, all at once."""
    done: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    for place, one in enumerate(task.instances):
        client.async_infer(
            task.model,
            [write(task, one[None])],
            callback=lambda result, error, place=place: done.put((place, result, error)),
        )
    answers = sorted((done.get(timeout=30) for _ in task.instances), key=lambda answer: answer[0])
    return np.concatenate([answer.as_numpy(task.output) for _, answer, _ in answers])


def write(task: Task, instances: Array) -> triton.InferInput:
    """Write instances as the client does."""
    tensor = triton.InferInput(task.input, list(instances.shape), "FP32")
    return tensor.set_data_from_numpy(np.ascontiguousarray(instances))


def look(client: triton.InferenceServerClient, task: Task) -> dict[str, Any]:
    """Ask what the server says of itself."""
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready(task.model),
        "version ready": client.is_model_ready(task.model, task.version),
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata(task.model, as_json=True),
        "config": client.get_model_config(task.model, as_json=True),
        "index": client.get_model_repository_index(as_json=True),
        "statistics": client.get_inference_statistics(task.model, as_json=True),
        "wrong shape": refusal(client, task, task.instances[:, :1]),
        "unknown model": refusal(client, task._replace(model="nobody"), task.instances),
    }


def refusal(client: triton.InferenceServerClient, task: Task, instances: Array) -> dict[str, str | None]:
    """Ask what must be refused, and give what the client makes of that."""
    try:
        client.infer(task.model, [write(task, instances)])
    except InferenceServerException as err:
        return {"status": err.status(), "message": err.message()}
    return {"status": None, "message": None}


if __name__ == "__main__":
    main()
