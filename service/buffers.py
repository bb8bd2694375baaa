"""The memory that a model reads and writes: of fixed sizes, bound to the session once, before the first request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.bundle import Signature, TensorSpec
from service.runtime import ort

Array = NDArray[Any]


class Buffers(Protocol):
    """Gives memory on the host, and binds it, or its counterpart on a device, to a session.

    `warm_up_runs` is how many runs of each size a thread has to make before the first that counts.
    """

    warm_up_runs: int

    def empty(self, spec: TensorSpec, size: int) -> Array:
        """Give zeros [size, *shape]."""

    def bind(self, instances: Array, outputs: tuple[Array, ...]) -> Callable[[], None]:
        """Give the function that computes `outputs` from `instances`, both [size, …] and from `empty`."""

    def num_bytes_used(self) -> int | None:
        """Count the bytes of the device's memory that are taken; None where that can not be read."""


class HostBuffers:
    """On the CPU the runtime reads and writes the very arrays."""

    warm_up_runs = 0

    def __init__(self, session: ort.InferenceSession, signature: Signature) -> None:
        self._session = session
        self._signature = signature

    def empty(self, spec: TensorSpec, size: int) -> Array:
        """Give zeros [size, *shape]."""
        return np.zeros((size, *spec.shape), dtype=spec.dtype)

    def bind(self, instances: Array, outputs: tuple[Array, ...]) -> Callable[[], None]:
        """Bind the arrays themselves."""
        # An OrtValue borrows the array's memory. The closure keeps all of them alive, the session's owner the arrays.
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in (instances, *outputs)]
        run_bound = plan_bound_run(self._session, bind_values(self._session, self._signature, values), {})

        def run(_borrowed: object = values) -> None:
            run_bound()

        return run

    def num_bytes_used(self) -> None:
        """Tell nothing: on the host it is the system's affair."""


def bind_values(session: ort.InferenceSession, signature: Signature, values: Sequence[ort.OrtValue]) -> ort.IOBinding:
    """Bind the input's value and the outputs', in the signature's order."""
    binding = session.io_binding()
    binding.bind_ortvalue_input(signature.input.name, values[0])
    for spec, value in zip(signature.outputs, values[1:], strict=True):
        binding.bind_ortvalue_output(spec.name, value)
    return binding


def plan_bound_run(
    session: ort.InferenceSession, binding: ort.IOBinding, entries: dict[str, str]
) -> Callable[[], None]:
    """Run with the binding and these run options, past the Python wrapper where that can be done.

    The wrapper of ONNX Runtime 1.31 asks on every run whether WebGPU captures graphs: 37 µs around a run of 15. Neither
    way goes on to another provider if the run fails, as `InferenceSession.run` would.
    """
    run_options = ort.RunOptions()
    for key, value in entries.items():
        run_options.add_run_config_entry(key, value)
    inner, inner_binding = getattr(session, "_sess", None), getattr(binding, "_iobinding", None)
    if inner is None or inner_binding is None:
        return lambda: session.run_with_iobinding(binding, run_options)
    return lambda: inner.run_with_iobinding(inner_binding, run_options)
