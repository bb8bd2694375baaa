"""The protocols that have no client of their own but an HTTP library, as their documentation shows them by hand.

TensorFlow Serving, MLflow, SageMaker and Vertex AI; the bodies are those that their SDKs' serializers write.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import requests

from tests.clients.task import Array, Task, read_task, tell

PATIENCE_SECONDS = 30
JSON = "application/json"


def main() -> None:
    """Ask in every way, and tell."""
    task = read_task()
    with requests.Session() as session:
        tell(ask(session, task), look(session, task))


def ask(session: requests.Session, task: Task) -> dict[str, Array]:
    """Ask for the same instances in all ways that must not differ by a bit."""
    rows, model = task.instances.tolist(), f"/v1/models/{task.model}"
    csv = "".join(",".join(map(str, row)) + "\n" for row in task.instances.reshape(len(rows), -1).tolist())
    table = {"columns": list(range(len(rows[0]))), "data": rows}
    return {
        "rows": read(post_json(session, task, f"{model}:predict", {"instances": rows}), "predictions"),
        "columns": read(post_json(session, task, f"{model}:predict", {"inputs": {task.input: rows}}), "outputs"),
        "rows of a version": read(
            post_json(session, task, f"{model}/versions/{task.version}:predict", {"instances": rows}), "predictions"
        ),
        "invocations, instances": read(post_json(session, task, "/invocations", {"instances": rows}), "predictions"),
        "invocations, inputs": read(post_json(session, task, "/invocations", {"inputs": rows}), "predictions"),
        "invocations, table": read(post_json(session, task, "/invocations", {"dataframe_split": table}), "predictions"),
        "invocations, csv": read(post(session, task, "/invocations", csv.encode(), "text/csv"), "predictions"),
        "invocations, npy": read(
            post(session, task, "/invocations", write_npy(task.instances), "application/x-npy"), "predictions"
        ),
        "invocations, raw": read(
            post(session, task, "/invocations", task.instances.tobytes(), "application/octet-stream"), "predictions"
        ),
    }


def read(response: requests.Response, key: str) -> Array:
    """Read the scores below a key."""
    if response.status_code != requests.codes.ok:
        raise RuntimeError(f"{response.request.method} {response.url}: {response.status_code} {response.text[:500]}")
    return np.array(response.json()[key], np.float32)


def post_json(session: requests.Session, task: Task, path: str, document: dict[str, Any]) -> requests.Response:
    """Post JSON as requests writes it."""
    return session.post(task.url + path, json=document, timeout=PATIENCE_SECONDS)


def post(session: requests.Session, task: Task, path: str, body: bytes, content_type: str) -> requests.Response:
    """Post bytes of a content type."""
    return session.post(task.url + path, body, headers={"content-type": content_type}, timeout=PATIENCE_SECONDS)


def write_npy(array: Array) -> bytes:
    """Write what SageMaker's NumpySerializer writes."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def look(session: requests.Session, task: Task) -> dict[str, Any]:
    """Ask what the server says of itself."""
    ping = session.get(f"{task.url}/ping", timeout=PATIENCE_SECONDS)
    unknown = post_json(session, task, "/v1/models/nobody:predict", {"instances": [[1.0]]})
    wrong = post_json(session, task, f"/v1/models/{task.model}:predict", {"instances": [[1.0]]})
    status = session.get(f"{task.url}/v1/models/{task.model}", timeout=PATIENCE_SECONDS)
    metadata = session.get(f"{task.url}/v1/models/{task.model}/metadata", timeout=PATIENCE_SECONDS)
    return {
        "ping": ping.status_code,
        "status": status.json(),
        "metadata": metadata.json(),
        "unknown model": {"status": unknown.status_code, "body": unknown.json()},
        "wrong shape": {"status": wrong.status_code, "body": wrong.json()},
    }


if __name__ == "__main__":
    main()
