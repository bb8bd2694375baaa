"""KServe's own REST client, unchanged, in its two protocols: v1, which is TensorFlow Serving's rows, and v2."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from httpx import HTTPStatusError
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from tests.clients.task import Array, Task, read_task, tell


async def main() -> None:
    """Ask in every way, and tell."""
    task = read_task()
    rows, tensors = RESTConfig(protocol="v1"), RESTConfig(protocol="v2")
    async with InferenceRESTClient(rows) as v1, InferenceRESTClient(tensors) as v2:
        tell(await ask(v1, v2, task), await look(v1, v2, task))


async def ask(v1: InferenceRESTClient, v2: InferenceRESTClient, task: Task) -> dict[str, Array]:
    """Ask for the same instances in all ways that must not differ by a bit."""
    return {
        "v1": await infer_rows(v1, task),
        "v2 binary": await infer(v2, task, binary_in=True, binary_out=True),
        "v2 binary in": await infer(v2, task, binary_in=True, binary_out=False),
        "v2 JSON": await infer(v2, task, binary_in=False, binary_out=False),
    }


async def infer_rows(client: InferenceRESTClient, task: Task) -> Array:
    """Ask in v1."""
    answer = await client.infer(task.url, {"instances": task.instances.tolist()}, model_name=task.model)
    return np.array(answer["predictions"], np.float32)


async def infer(client: InferenceRESTClient, task: Task, *, binary_in: bool, binary_out: bool) -> Array:
    """Ask in v2."""
    request = write(task, task.instances, binary_in=binary_in, binary_out=binary_out)
    answer = await client.infer(task.url, request, model_name=task.model)
    return np.asarray(answer.outputs[0].as_numpy(), np.float32).reshape(len(task.instances), -1)


def write(task: Task, instances: Array, *, binary_in: bool, binary_out: bool) -> InferRequest:
    """Write the instances as the client does."""
    tensor = InferInput(task.input, list(instances.shape), "FP32")
    tensor.set_data_from_numpy(np.ascontiguousarray(instances), binary_data=binary_in)
    outputs = [RequestedOutput(task.output, {"binary_data": binary_out})]
    return InferRequest(task.model, [tensor], request_id="42", request_outputs=outputs)


async def look(v1: InferenceRESTClient, v2: InferenceRESTClient, task: Task) -> dict[str, Any]:
    """Ask what the server says of itself."""
    return {
        "live": await v2.is_server_live(task.url),
        "ready": await v2.is_server_ready(task.url),
        "model ready": await v2.is_model_ready(task.url, task.model),
        "unknown ready": await v2.is_model_ready(task.url, "nobody"),
        "wrong shape": await refusal(v2, task, write(task, task.instances[:, :1], binary_in=True, binary_out=True)),
        "v1 wrong shape": await refusal(v1, task, {"instances": [[1.0]]}),
    }


async def refusal(client: InferenceRESTClient, task: Task, request: Any) -> dict[str, Any]:
    """Ask what must be refused, and give what the client makes of that."""
    try:
        await client.infer(task.url, request, model_name=task.model)
    except HTTPStatusError as err:
        return {"status": err.response.status_code, "message": str(err)}
    return {"status": 200, "message": ""}


if __name__ == "__main__":
    asyncio.run(main())
