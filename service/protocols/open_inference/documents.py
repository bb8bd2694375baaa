"""What a server and its models say about themselves in the Open Inference Protocol, and in Triton's extensions of it.

From values to values: who knows the state of things passes it in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.bundle import TensorSpec
from service.protocols.open_inference.datatypes import DATATYPE_OF
from service.repository import ServedModel

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
PLATFORM = "onnx_onnxv1"
# A request may hold any number of instances. Triton's clients want a limit, and take 0 for a model without batches.
ADVERTISED_BATCH = 1024

State = Literal["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"]


@dataclass(frozen=True, kw_only=True)
class Duration:
    """How often something was done, and how many nanoseconds that took in all."""

    count: int = 0
    nanoseconds: int = 0


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What one version of a model has done since it was loaded.

    `num_inferences` counts instances, `num_executions` the model's runs, each of the durations requests.
    `last_inference_milliseconds` is a time since 1970.
    """

    num_inferences: int = 0
    num_executions: int = 0
    last_inference_milliseconds: int = 0
    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()


def describe_server(version: str, extensions: Sequence[str] = EXTENSIONS) -> dict[str, Any]:
    """Say what server this is, and what it can do beyond the protocol."""
    return {"name": "foldserve", "version": version, "extensions": list(extensions)}


def describe_metadata(model: ServedModel, versions: Sequence[str] = ()) -> dict[str, Any]:
    """Say what a model takes and gives; −1 stands for the number of instances."""
    signature = model.predictor.signature
    return {
        "name": model.name,
        **({"versions": list(versions)} if versions else {}),
        "platform": PLATFORM,
        "inputs": [_describe_tensor(signature.input)],
        "outputs": [_describe_tensor(spec) for spec in signature.outputs],
    }


def describe_config(model: ServedModel) -> dict[str, Any]:
    """Say as much of Triton's model configuration as its clients ask for."""
    signature = model.predictor.signature
    return {
        "name": model.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": ADVERTISED_BATCH,
        "input": [_configure_tensor(signature.input)],
        "output": [_configure_tensor(spec) for spec in signature.outputs],
    }


def describe_statistics(model: ServedModel, statistics: Statistics) -> dict[str, Any]:
    """Say what one version of a model has done: an entry of `list_statistics`."""
    return {
        "name": model.name,
        "version": model.version or "",
        "last_inference": statistics.last_inference_milliseconds,
        "inference_count": statistics.num_inferences,
        "execution_count": statistics.num_executions,
        "inference_stats": {
            "success": _describe_duration(statistics.success),
            "fail": _describe_duration(statistics.fail),
            "queue": _describe_duration(statistics.queue),
            "compute_input": _describe_duration(statistics.compute_input),
            "compute_infer": _describe_duration(statistics.compute_infer),
            "compute_output": _describe_duration(statistics.compute_output),
        },
        "batch_stats": [],
    }


def list_statistics(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Put the statistics of several models into one document."""
    return {"model_stats": list(entries)}


def index_entry(name: str, version: str | None, state: State, reason: str = "") -> dict[str, str]:
    """Say in which state one version of a model is, for the repository's index."""
    return {"name": name, "version": version or "", "state": state, "reason": reason}


def _describe_tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": DATATYPE_OF[spec.dtype], "shape": [-1, *spec.shape]}


def _configure_tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": f"TYPE_{DATATYPE_OF[spec.dtype]}", "dims": list(spec.shape)}


def _describe_duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.nanoseconds}
