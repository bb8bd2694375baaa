"""The command `mlserver infer`, unchanged: requests from a file, answers into a file, with and without binary data."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.clients.task import Array, Task, read_task, tell


def main() -> None:
    """Run it in each way, and tell."""
    task = read_task()
    scores = {
        "one at a time": infer(task),
        "in batches": infer(task, "--batch-size", "2"),
        "binary": infer(task, "--binary-data"),
    }
    tell(scores, {})


def infer(task: Task, *options: str) -> Array:
    """Run the command over a file with one instance a line; give the scores in the order of the instances."""
    with tempfile.TemporaryDirectory() as directory:
        asked, answered = Path(directory, "asked.jsonl"), Path(directory, "answered.jsonl")
        asked.write_text("".join(write(task, one) + "\n" for one in task.instances))
        command = [str(Path(sys.executable).with_name("mlserver")), "infer", "--url", task.address, "--workers", "2"]
        places = ["--model-name", task.model, "--input-data-path", str(asked), "--output-data-path", str(answered)]
        subprocess.run([*command, *places, *options], check=True, capture_output=True, timeout=60)
        lines = [json.loads(line) for line in answered.read_text().splitlines()]
    in_order = sorted(lines, key=lambda line: int(line["parameters"]["batch_index"]))
    return np.array([line["outputs"][0]["data"] for line in in_order], np.float32).reshape(len(task.instances), -1)


def write(task: Task, instance: Array) -> str:
    """Write a line that asks for one instance."""
    tensor = {"name": task.input, "shape": [1, *instance.shape], "datatype": "FP32", "data": instance.ravel().tolist()}
    return json.dumps({"inputs": [tensor]})


if __name__ == "__main__":
    main()
