"""The memory of a model on the GPU: for each size of batch fixed device memory, bound once, and one CUDA graph.

One run is four things on one stream: copy the instances to the device, launch, copy the outputs back; then the host
waits, once. Because they are on one stream they happen in this order. Launching is replaying a CUDA graph: all kernels
of the model by one call, at the addresses where they were captured, which is why nothing here ever moves.

ONNX Runtime keeps a captured graph by thread: the thread that will serve has to make the `warm_up_runs` of each size
itself, of which the first allocates and captures. While one thread captures, no other may allocate, whatever model it
runs; so this comes before the first request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.buffers import Array, bind_values, plan_bound_run
from service.bundle import Signature, TensorSpec
from service.cudart import CudaRuntime
from service.errors import DeviceUnavailable
from service.runtime import ort

WARM_UP_RUNS = 3


@dataclass(frozen=True)
class Staging:
    """How instances and outputs get to the device and back without waiting: by page-locked memory and a stream."""

    runtime: CudaRuntime
    stream: int


class DeviceBuffers:
    """Device memory and a graph for each size of batch; asked for a size again, it gives the same.

    Without `staging` the copies are ONNX Runtime's own, which wait one by one. `device` is where the memory is; it is
    another than "cuda" in tests alone.
    """

    warm_up_runs = WARM_UP_RUNS

    def __init__(
        self,
        session: ort.InferenceSession,
        signature: Signature,
        *,
        graphs: bool,
        staging: Staging | None,
        device: str = "cuda",
    ) -> None:
        self._session = session
        self._signature = signature
        self._graphs = graphs
        self._staging = staging
        self._device = device
        self._buckets: dict[int, _Bucket] = {}

    def empty(self, spec: TensorSpec, size: int) -> Array:
        """Give zeros [size, *shape] on the host, page-locked if copies are staged."""
        shape = (size, *spec.shape)
        if self._staging is None:
            return np.zeros(shape, spec.dtype)
        return self._staging.runtime.page_locked(shape, spec.dtype)

    def bind(self, instances: Array, outputs: tuple[Array, ...]) -> Callable[[], None]:
        """Give the function that copies `instances` to the device, computes there, and copies `outputs` back."""
        size = len(instances)
        bucket = self._buckets.get(size) or self._open_bucket(size)
        self._buckets[size] = bucket
        if self._staging is None:
            return _plan_blocking(bucket, instances, outputs)
        return _plan_staged(bucket, instances, outputs, self._staging)

    def num_bytes_used(self) -> int | None:
        """Count the bytes of the GPU's memory that are taken, by whomever; None without staging.

        ONNX Runtime's Python does not tell what its arena holds: this is the device's own count.
        """
        return None if self._staging is None else self._staging.runtime.num_bytes_used()

    def _open_bucket(self, size: int) -> _Bucket:
        specs = (self._signature.input, *self._signature.outputs)
        values = [self._allocate(spec, size) for spec in specs]
        binding = bind_values(self._session, self._signature, values)
        return _Bucket(values[0], tuple(values[1:]), plan_bound_run(self._session, binding, self._run_options()))

    def _allocate(self, spec: TensorSpec, size: int) -> ort.OrtValue:
        shape, kind = [size, *spec.shape], np.dtype(spec.dtype).type
        try:
            return ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, self._device, 0)
        except Exception as err:  # ONNX Runtime's errors have no common base class
            what = f"{spec.name!r} of a batch of {size}"
            raise DeviceUnavailable(f"the GPU has no memory for {what}: {str(err)[:300]}") from err

    def _run_options(self) -> dict[str, str]:
        # Graphs are told apart by a number of our own; 0 is ONNX Runtime's, -1 means none.
        graph = {"gpu_graph_id": str(len(self._buckets) + 1 if self._graphs else -1)}
        return graph if self._staging is None else graph | {"disable_synchronize_execution_providers": "1"}


@dataclass(frozen=True)
class _Bucket:
    """What one size of batch has on the device."""

    input: ort.OrtValue
    outputs: tuple[ort.OrtValue, ...]
    launch: Callable[[], None]


def _plan_staged(bucket: _Bucket, instances: Array, outputs: tuple[Array, ...], staging: Staging) -> Callable[[], None]:
    runtime, stream, launch = staging.runtime, staging.stream, bucket.launch
    there = (bucket.input.data_ptr(), instances.ctypes.data, instances.nbytes)
    back = [
        (output.ctypes.data, value.data_ptr(), output.nbytes)
        for output, value in zip(outputs, bucket.outputs, strict=True)
    ]

    def run(_borrowed: Any = (bucket, instances, outputs)) -> None:
        runtime.copy_to_device(*there, stream)
        launch()
        for copy in back:
            runtime.copy_to_host(*copy, stream)
        runtime.wait_for(stream)

    return run


def _plan_blocking(bucket: _Bucket, instances: Array, outputs: tuple[Array, ...]) -> Callable[[], None]:
    def run() -> None:
        bucket.input.update_inplace(instances)
        bucket.launch()
        for output, value in zip(outputs, bucket.outputs, strict=True):
            np.copyto(output, value.numpy())

    return run
