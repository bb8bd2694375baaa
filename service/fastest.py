"""`--device fastest`: which of CPU and GPU answers one instance sooner is measured at start, for each model.

A small network is done on the CPU before a GPU has been told of it, a large one is not; and nobody can say beforehand
where the limit is. The rule: **batch 1 decides**, by the medians of runs that take turns, copies to and from the device
included, and the GPU has to be faster by a tenth. One instance at a time is what this service is for; what the larger
sizes take is measured and shown too, but a GPU that is faster only there would make every lone request slower.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from service.batching import SIZES_ON_A_GPU, plausible_instances
from service.bundle import Signature
from service.device import AS_USUAL, GpuOptions
from service.errors import DeviceUnavailable
from service.placement import Pace
from service.session import Batch, Session, open_session

MAX_ROUNDS = 100
MIN_ROUNDS = 5
SECONDS_A_SIZE = 0.1
WORTH_IT = 0.9


def open_fastest(model_path: Path, *, signature: Signature | None = None, gpu: GpuOptions = AS_USUAL) -> Session:
    """Open a model on the device that is faster for one instance; where no GPU can be used, on the CPU.

    Raises:
        ModelUnloadable: ONNX Runtime refuses the file, or its inputs and outputs are not of a form that can be served.
        SignatureMismatch: the model's inputs and outputs are not the signature's.
    """
    on_cpu = open_session(model_path, signature=signature, device="cpu")
    try:
        on_gpu = open_session(model_path, signature=signature, device="cuda", gpu=gpu)
    except DeviceUnavailable as err:
        on_cpu.placement = replace(on_cpu.placement, requested="fastest", reason=str(err))
        return on_cpu
    return choose_faster(on_cpu, on_gpu)


def choose_faster(on_cpu: Session, on_gpu: Session) -> Session:
    """Measure both, and give the one that is faster for one instance; its placement holds what was measured."""
    paces = measure_paces(on_cpu, on_gpu)
    chosen = on_gpu if paces[0].gpu_us < WORTH_IT * paces[0].cpu_us else on_cpu
    chosen.placement = replace(chosen.placement, requested="fastest", paces=paces)
    return chosen


def measure_paces(on_cpu: Session, on_gpu: Session) -> tuple[Pace, ...]:
    """Measure a batch of 1, and of each larger size that the model takes, on both."""
    sizes = (1, *SIZES_ON_A_GPU) if on_cpu.has_free_batch else (1,)
    both = [session.bind(sizes) for session in (on_cpu, on_gpu)]
    return tuple(_measure_pace(size, both[0][size], both[1][size], on_cpu.signature) for size in sizes)


def _measure_pace(size: int, on_cpu: Batch, on_gpu: Batch, signature: Signature) -> Pace:
    instances = plausible_instances(signature.input, (), size)
    for batch in (on_cpu, on_gpu):
        np.copyto(batch.input, instances)
        batch.warm_up()
        batch.run()
    pairs = [(_time(on_cpu), _time(on_gpu)) for _ in range(MIN_ROUNDS)]
    rounds = int(SECONDS_A_SIZE / max(sum(map(sum, pairs)) / MIN_ROUNDS, 1e-9))
    pairs += [(_time(on_cpu), _time(on_gpu)) for _ in range(min(rounds, MAX_ROUNDS))]
    cpu_us, gpu_us = (1e6 * statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    return Pace(size=size, cpu_us=cpu_us, gpu_us=gpu_us)


def _time(batch: Batch) -> float:
    start = time.perf_counter()
    batch.run()
    return time.perf_counter() - start
