"""What `make bench-gpu` found, as Markdown: a table for each model and size of batch, and what it comes down to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.gpu_plan import WAYS, LeftOut, Plan
from benchmarks.gpu_timing import Timing
from benchmarks.tables import table

METHOD = """\
One instance or batch from an array on the host to scores and logits on the host, float32, TF32 off for everyone. All
ways take turns within each round, every run is timed by itself; µs, the median and the 99th percentile over all rounds.
`kernels` is the share of the median in which the GPU computes, by CUPTI, in other runs. `BN` is the network as trained
(ONNX Runtime folds some BatchNorms backward by itself), `folded` is without them. The floor is an empty CUDA graph
launched between the two copies, by ctypes. Before it is timed, each way's answer is compared with the network in
float64 on the CPU."""

COLUMNS = ("way", "BN: median", "p99", "kernels", "folded: median", "p99", "kernels", "BN / folded")
BASELINE, SERVED = "session.run", "IOBinding + graph + pinned"
WANTED_OVER_BASELINE = 2.0
ALLOWED_OVER_FLOOR = 1.5


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One way on one model at one batch. `kernels` are µs of the GPU's own, None where nothing was recorded."""

    model: str
    batch: int
    way: str
    folded: bool
    timing: Timing
    kernels: float | None = None


@dataclass(frozen=True, kw_only=True)
class Floor:
    """An empty launch between copies as large as this model's at this batch."""

    model: str
    batch: int
    timing: Timing


@dataclass(frozen=True, kw_only=True)
class Served:
    """The whole service on the GPU with one connection, and a server that does nothing, for the same client."""

    model: str
    service: Timing
    floor: Timing


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was measured, and what was not and why."""

    measured: tuple[Measured, ...] = ()
    floors: tuple[Floor, ...] = ()
    served: tuple[Served, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def __add__(self, others: Findings) -> Findings:
        return Findings(
            measured=self.measured + others.measured,
            floors=self.floors + others.floors,
            served=self.served + others.served,
            left_out=self.left_out + others.left_out,
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of one run."""

    machine: dict[str, str]
    plan: Plan
    found: Findings


def render(report: Report) -> str:
    """Write the report."""
    plan = report.plan
    run = f"{dt.datetime.now(dt.UTC).date()}, by `python -m benchmarks.gpu`; {plan.rounds} rounds"
    parts = [
        "# The GPU, measured",
        f"{run} of {1e3 * plan.seconds:.0f} ms a way, at least three runs each.",
        table(("machine", ""), list(report.machine.items()), left=frozenset({0, 1})),
        METHOD,
        table(("way", "what it is"), [(way.name, way.what) for way in WAYS], left=frozenset({0, 1})),
        *_tables(report),
        *_service_table(report),
    ]
    if lines := headlines(report):
        parts += ["## What it comes down to", _list(lines)]
    if report.found.left_out:
        parts += ["## Left out", _list(map(str, report.found.left_out))]
    return "\n\n".join(parts) + "\n"


def headlines(report: Report) -> list[str]:
    """Say how the goals were met, for each model at batch 1; nothing about what was not measured."""
    timings = {(one.model, one.way): one.timing for one in report.found.measured if one.batch == 1 and one.folded}
    lines = []
    for model in report.plan.models:
        baseline, served = timings.get((model, BASELINE)), timings.get((model, SERVED))
        if baseline and served:
            ratio = baseline.median / served.median
            lines.append(
                f"{model}, batch 1: {SERVED} is {ratio:.2f} times as fast as {BASELINE} "
                f"(goal {WANTED_OVER_BASELINE:g}: {_met(ratio >= WANTED_OVER_BASELINE)})"
            )
    return lines + [_service_headline(one, timings.get((one.model, SERVED))) for one in report.found.served]


def _service_headline(one: Served, replay: Timing | None) -> str:
    if replay is None:
        return f"{one.model}: the service answers in {one.service.median:.0f} µs, the floor in {one.floor.median:.0f}"
    base = one.floor.median + replay.median
    ratio = one.service.median / base
    return (
        f"{one.model}: the service answers in {one.service.median:.0f} µs, {ratio:.2f} times the floor and the run "
        f"together, {base:.0f} µs (goal {ALLOWED_OVER_FLOOR:g}: {_met(ratio <= ALLOWED_OVER_FLOOR)})"
    )


def _met(reached: bool) -> str:
    return "met" if reached else "not met"


def _tables(report: Report) -> Iterator[str]:
    for model in report.plan.models:
        for batch in report.plan.batches:
            rows = [*_rows(report, model, batch), *_floor_rows(report, model, batch)]
            if rows:
                yield f"## {model}, batch {batch}"
                yield table(COLUMNS, rows)


def _rows(report: Report, model: str, batch: int) -> Iterator[tuple[str, ...]]:
    for way in WAYS:
        pair = {
            one.folded: one
            for one in report.found.measured
            if (one.model, one.batch, one.way) == (model, batch, way.name)
        }
        if pair:
            yield (way.name, *_cells(pair.get(False)), *_cells(pair.get(True)), _ratio(pair))


def _cells(measured: Measured | None) -> tuple[str, str, str]:
    if measured is None:
        return "–", "–", "–"
    timing, kernels = measured.timing, measured.kernels
    share = "–" if kernels is None else f"{100 * kernels / timing.median:.0f} %"
    return f"{timing.median:,.1f}", f"{timing.p99:,.1f}", share


def _ratio(pair: dict[bool, Measured]) -> str:
    return f"{pair[False].timing.median / pair[True].timing.median:.2f}" if len(pair) == 2 else "–"


def _floor_rows(report: Report, model: str, batch: int) -> Iterator[tuple[str, ...]]:
    for floor in report.found.floors:
        if (floor.model, floor.batch) == (model, batch):
            yield ("floor", f"{floor.timing.median:,.1f}", f"{floor.timing.p99:,.1f}", *["–"] * 5)


def _service_table(report: Report) -> Iterator[str]:
    if report.found.served:
        rows = [
            (one.model, *(f"{value:,.0f}" for value in (one.service.median, one.service.p99, one.floor.median)))
            for one in report.found.served
        ]
        yield "## The whole service, one connection"
        yield table(("model", "service: median", "p99", "floor: median"), rows)


def _list(lines: Iterator[str] | list[str] | map[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
