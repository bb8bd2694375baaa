"""Measures one model over a GPU: at each size of batch every way is made ready, checked, and timed in turns."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.errors import WrongAnswer
from benchmarks.gpu_floor import prepare_floor
from benchmarks.gpu_kernels import measure_kernels
from benchmarks.gpu_models import Subject
from benchmarks.gpu_plan import Feasible, LeftOut, Plan, Way
from benchmarks.gpu_report import Findings, Floor, Measured, Served
from benchmarks.gpu_timing import Timing, take_turns
from benchmarks.gpu_ways import Array, Material, Run, forget_compiled, prepare

NUM_CHECKED = 2  # rows of each batch, in float64 on the CPU
# Of the largest logit. float32 sums in another order part by some 1e-6, TF32 and float16 by 1e-3.
TOLERANCE = 1e-4
SEED = 0
FLOOR = "floor"


@dataclass(frozen=True)
class Bench:
    """A model, its ONNX files by whether they are folded (none if no way needs them), and a folder to work in.

    On another `device` than a GPU, which is for tests, there is neither a floor nor kernels.
    """

    subject: Subject
    paths: dict[bool, Path]
    folder: Path
    plan: Plan
    device: str = "cuda"


@dataclass(frozen=True)
class _Ready:
    """One way that is ready to run; `words` name it, its model and its batch."""

    way: str
    folded: bool
    words: str
    run: Run


def measure_model(bench: Bench, feasible: Feasible) -> Findings:
    """Measure all ways at each batch, and the whole service.

    Raises:
        WrongAnswer: a way does not answer as the network does.
        PeerFailed: a server did not start, or failed.
    """
    found = Findings()
    for batch in bench.plan.batches:
        found += _measure_batch(bench, feasible, draw_instances(bench.subject, batch))
        gc.collect()
        if bench.device == "cuda":
            torch.cuda.empty_cache()
    return found + _serve(bench) if feasible.service else found


def draw_instances(subject: Subject, batch: int) -> Array:
    """Draw instances of values between 0 and 1, float32 [batch, …]."""
    return np.random.default_rng(SEED).random((batch, *subject.instance_shape), dtype=np.float32)


def check_answer(words: str, found: Array, expected: Array) -> None:
    """Compare logits with those of the network as trained.

    Raises:
        WrongAnswer: they differ by more than rounding in float32.
    """
    worst = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not worst <= TOLERANCE:
        raise WrongAnswer(f"{words}: a logit is {worst:.2g} of the largest away, allowed are {TOLERANCE:g}")


def _measure_batch(bench: Bench, feasible: Feasible, instances: Array) -> Findings:
    forget_compiled()
    ready, left_out = _make_ready(bench, feasible.ways, instances)
    if not ready:
        return Findings(left_out=left_out)
    runs: dict[str, Callable[[], object]] = {one.words: one.run for one in ready}
    if bench.device == "cuda":
        runs[FLOOR] = prepare_floor(instances.nbytes, sum(answer.nbytes for answer in ready[0].run()))
    timings = take_turns(runs, rounds=bench.plan.rounds, seconds=bench.plan.seconds)
    return Findings(
        measured=tuple(_measured(bench, one, len(instances), timings[one.words]) for one in ready),
        floors=tuple(
            Floor(model=bench.subject.name, batch=len(instances), timing=timing)
            for words, timing in timings.items()
            if words == FLOOR
        ),
        left_out=left_out,
    )


def _make_ready(bench: Bench, ways: tuple[Way, ...], instances: Array) -> tuple[list[_Ready], tuple[LeftOut, ...]]:
    """Make all ways ready, and check them. One that can not be made ready is left out, with its reason."""
    ready, left_out = [], []
    expected = _compute_reference(bench.subject, instances[:NUM_CHECKED])
    for way in ways:
        for folded in (False, True):
            words = f"{way.name} on {bench.subject.name}, batch {len(instances)}, {'folded' if folded else 'BN'}"
            try:
                run = prepare(way.name, _gather(bench, instances, folded=folded))
            except Exception as err:  # noqa: BLE001 - each runtime fails in its own ways, and the others go on
                left_out.append(LeftOut(what=words, reason=f"{type(err).__name__}: {_first_line(err)}"))
                continue
            check_answer(words, run()[1][:NUM_CHECKED], expected)
            ready.append(_Ready(way.name, folded, words, run))
    return ready, tuple(left_out)


def _gather(bench: Bench, instances: Array, *, folded: bool) -> Material:
    network = bench.subject.folded if folded else bench.subject.network
    return Material(network, bench.paths.get(folded), instances, bench.device, bench.folder / "engines")


def _measured(bench: Bench, ready: _Ready, batch: int, timing: Timing) -> Measured:
    kernels = measure_kernels(ready.run) if bench.device == "cuda" else None
    return Measured(
        model=bench.subject.name,
        batch=batch,
        way=ready.way,
        folded=ready.folded,
        timing=timing,
        kernels=kernels,
    )


def _serve(bench: Bench) -> Findings:
    from benchmarks.gpu_service import time_service  # needs what serves

    timings = time_service(bench.paths[True], draw_instances(bench.subject, 1)[0], device=bench.device)
    served = Served(model=bench.subject.name, service=timings["service"], floor=timings["floor"])
    return Findings(served=(served,))


def _compute_reference(subject: Subject, instances: Array) -> Array:
    """The logits of the network as trained, in float64 on the CPU."""
    network = copy.deepcopy(subject.network).cpu().double()
    with torch.inference_mode():
        logits: Array = network(torch.from_numpy(instances).double()).numpy()
    return logits


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [""])[0][:200]
