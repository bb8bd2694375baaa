"""Measures how long one instance takes before and after folding, as it would be served, to say what a fold is worth.

Another process can only ever make a run longer. So the faster half of the runs is the model's and the slower half the
machine's, and the median of the faster half is reported: unlike the very fastest run it is not won by luck.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import onnx

from model_export.fold.check import Comparison, Recording
from model_export.fold.instances import find_one_feed
from model_export.memory import return_memory
from service.device import CPU_PROVIDER
from service.runtime import ort, serving_options

SMALL_BYTES = 32 * 2**20  # two models of this size are held at once; of larger ones, one after the other
NUM_BLOCKS = 5  # small models take turns, so that both meet the same neighbours and the same clock frequency
BLOCK_SECONDS = 0.03
MIN_RUNS = 3  # in a block, however long a run takes


@dataclass(frozen=True)
class Latency:
    """Microseconds for one instance on one CPU thread, with the service's session options."""

    before_us: float
    after_us: float


def latency_of(recording: Recording, comparison: Comparison, after: Path) -> Latency | None:
    """The latency of models that were compared; None where one of them does not run here.

    Large ones were timed when they were compared, at the same options, and are not opened once more.
    """
    before_seconds, after_seconds = recording.serving_seconds, comparison.serving_seconds
    if max(_num_bytes(recording.path), _num_bytes(after)) < SMALL_BYTES:
        return measure_latency(recording.path, after)
    if before_seconds is None or after_seconds is None:
        return None
    return Latency(1e6 * before_seconds, 1e6 * after_seconds)


def measure_latency(before: Path, after: Path) -> Latency | None:
    """Time both models on a batch of one, taking turns; None where one of them does not run here."""
    try:
        return _measure_in_turns(_plan_run(before), _plan_run(after))
    except Exception:  # noqa: BLE001 - whatever keeps a model from running here, there is no time to report
        return None


def _measure_in_turns(before: Callable[[], object], after: Callable[[], object]) -> Latency:
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(NUM_BLOCKS):
        seconds[0].extend(_time_block(before, BLOCK_SECONDS))
        seconds[1].extend(_time_block(after, BLOCK_SECONDS))
    return Latency(_microseconds(seconds[0]), _microseconds(seconds[1]))


def _time_block(run: Callable[[], object], budget_seconds: float) -> list[float]:
    """How long each run took, but for the first: it finds cold caches."""
    run()
    seconds: list[float] = []
    end = perf_counter() + budget_seconds
    while len(seconds) < MIN_RUNS or perf_counter() < end:
        start = perf_counter()
        run()
        seconds.append(perf_counter() - start)
    return seconds


def _microseconds(seconds: list[float]) -> float:
    faster = sorted(seconds)[: (len(seconds) + 1) // 2]
    return 1e6 * statistics.median(faster)


def _plan_run(path: Path) -> Callable[[], object]:
    """One run with bound buffers, past the Python wrapper where that can be done: it takes longer than a small model.

    Raises:
        Exception: ONNX Runtime's own: the model does not run here.
    """
    return_memory()
    session = ort.InferenceSession(str(path), serving_options(), providers=[CPU_PROVIDER])
    _, (feed, answers) = find_one_feed(session)
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in (*feed.values(), *answers.values())]
    binding = session.io_binding()
    for name, value in zip(feed, values, strict=False):
        binding.bind_ortvalue_input(name, value)
    for name, value in zip(answers, values[len(feed) :], strict=True):
        binding.bind_ortvalue_output(name, value)
    return _bound_run(session, binding, (feed, answers, values))


def _bound_run(session: ort.InferenceSession, binding: ort.IOBinding, borrowed: object) -> Callable[[], object]:
    inner, inner_binding = getattr(session, "_sess", None), getattr(binding, "_iobinding", None)
    options = ort.RunOptions()

    def run(_borrowed: object = borrowed) -> None:  # ONNX Runtime reads and writes these very arrays
        if inner is None or inner_binding is None:
            session.run_with_iobinding(binding, options)
        else:
            inner.run_with_iobinding(inner_binding, options)

    return run


def _num_bytes(path: Path) -> int:
    """Of the file, with the weights that lie beside it."""
    size: int = path.stat().st_size
    if size >= SMALL_BYTES:
        return size
    graph = onnx.load(path, load_external_data=False).graph
    entries = [entry for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"]
    sizes: dict[str, int] = {entry.value: (path.parent / entry.value).stat().st_size for entry in entries}
    return size + sum(sizes.values())
