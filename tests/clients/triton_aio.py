"""Triton's own asyncio client, unchanged: many instances at once over few connections."""

from __future__ import annotations

import asyncio

import numpy as np
import tritonclient.http.aio as triton

from tests.clients.task import Array, Task, read_task, tell


async def main() -> None:
    """Ask one instance at a time, all at once, and all in one; and tell."""
    task = read_task()
    async with triton.InferenceServerClient(task.address) as client:
        alone = await asyncio.gather(*(infer(client, task, one[None]) for one in task.instances))
        together = await infer(client, task, task.instances)
        facts = {"ready": await client.is_server_ready(), "model ready": await client.is_model_ready(task.model)}
    tell({"alone": np.concatenate(alone), "together": together}, facts)


async def infer(client: triton.InferenceServerClient, task: Task, instances: Array) -> Array:
    """Ask once."""
    tensor = triton.InferInput(task.input, list(instances.shape), "FP32").set_data_from_numpy(instances)
    result = await client.infer(task.model, [tensor])
    return np.asarray(result.as_numpy(task.output))


if __name__ == "__main__":
    asyncio.run(main())
