"""How long the GPU itself computes in a run: the kernels' time, as CUPTI records it for the whole process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

NUM_RUNS = 20
MOVES = ("Memcpy", "Memset")  # on the device too, but no kernels


@dataclass(frozen=True)
class Activity:
    """One thing that a device did: its name, and for how many microseconds."""

    name: str
    us: float


def measure_kernels(run: Callable[[], object]) -> float | None:
    """Give the microseconds of kernels in one run, by PyTorch's profiler; None if it records nothing.

    ONNX Runtime's kernels are recorded too: CUPTI does not ask who launched them. Profiling slows the launches down,
    not the kernels, so runs that are timed are others.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        for _ in range(NUM_RUNS):
            run()
        torch.cuda.synchronize()
    recorded = [
        Activity(event.name, event.time_range.elapsed_us())
        for event in profiled.events() or ()
        if event.device_type.name == "CUDA"
    ]
    return kernel_us(recorded, NUM_RUNS)


def kernel_us(recorded: Iterable[Activity], num_runs: int) -> float | None:
    """Add up the kernels of so many runs, and give those of one; None if there is none."""
    kernels = [activity.us for activity in recorded if not activity.name.startswith(MOVES)]
    return sum(kernels) / num_runs if kernels else None
