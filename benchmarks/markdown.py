"""A report for the repository: Markdown, with all that is needed to judge the numbers and to take them again."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import protocols, steps
from benchmarks.goals import goals
from benchmarks.models import Shape
from benchmarks.report import (
    COLUMNS,
    PACED_COLUMNS,
    SERVER_COLUMNS,
    Report,
    cells,
    cost_cells,
    describe_shape,
    headlines,
    main_rows,
    noise,
    paced_cells,
)
from benchmarks.startup import describe_startup
from benchmarks.tables import table

METHOD = """\
One server on one core with all its processes, the load on another where there is one, keep-alive connections over
loopback; 64 different bodies. Before it is timed, each server's answers are compared with ONNX Runtime's. The servers
take turns within each round; numbers are medians over rounds, `spread` is (max − min)/median of req/s, and a ratio (of
req/s) is the median of those within the rounds. `CPU µs` is what the server's processes used for a request. A failed
request would have ended the run.

Closed loop: `wrk`, each connection with one request on its way at a time. Open loop: requests are due at times that are
drawn beforehand, at equal distances (`even`) or as independent clients send (`poisson`), at half the highest rate that
the same round's closed loop reached, over the most connections; a latency counts from when its request was due.
`late µs` is by how much the generator itself was late, 99th percentile: a window where that is more than a quarter of
the latency says nothing and is left out. `memory` is that of all the server's processes after the load, pages that
they share counted once."""

OURS_METHOD = """\
`floor` is a no-op ASGI app that reads the same body and answers as many bytes, under uvicorn with httptools and uvloop;
`floor-zttp` the same with uvicorn's newer parser. `tutorial` is FastAPI with a `def` endpoint, pydantic in and out, and
ONNX Runtime's defaults; by these ONNX Runtime binds a spinning thread to every other core, so `tutorial-1` is there
too, the same on one thread. `foldserve-asgi` is the service with `--http asgi`. `foldserve-2` has two workers on two
cores; on a computer of two cores these are all, and the load takes its share of them."""

PROTOCOLS_METHOD = """\
`foldserve-v2`, `-tensorflow` and `-raw` are the service asked in other protocols, each a process of its own: a tensor
in the Open Inference Protocol's JSON, a row in TensorFlow Serving's, and an instance's float32 as they are
(`Inference-Header-Content-Length: 0`), which bytes answer. Their answers hold all outputs, those of `/predict` the
label and the scores. `floor-raw` is the floor that reads those bytes and answers as many as `foldserve-raw`, whose
`× floor` is to it; the others' is to `floor`, which reads the body of `/predict`."""

PEERS_METHOD = """\
Each model server runs in an environment of its own (`benchmarks/peers/requirements-*.txt`) and serves the same ONNX
file as its documentation shows, with one worker; what was chosen in its favour stands at the head of its file in
`benchmarks/peers/`. `floor` is a no-op ASGI app that reads the same body and answers as many bytes, `tutorial` FastAPI
with a `def` endpoint, pydantic in and out, and ONNX Runtime's defaults. MLServer's requests are those of its V2
protocol."""

FOLDING_METHOD = """\
One instance at a time in ONNX Runtime, with the service's session options and without HTTP: the graph as it was
exported and the same graph folded, taking turns."""

STEPS_METHOD = """\
The service's own functions in tight loops, on the server's core, in µs for one request. A live server that sleeps
between requests takes two to four times as long for the same work; uvloop's and the kernel's part in between is not in
these."""


def render(report: Report) -> str:
    """Write the report as Markdown."""
    return "\n\n".join(_sections(report)) + "\n"


def _sections(report: Report) -> Iterator[str]:
    yield "# Serving, measured" if report.steps else "# Serving beside other model servers, measured"
    yield "\n".join(f"* {line}" for line in (*headlines(report), *protocols.headlines(report)))
    yield _goals(report)
    yield f"{report.date}, by `{report.command}`. {noise(report)}"
    yield table(("machine", ""), list(report.machine.items()), left=frozenset({0, 1}))
    yield METHOD
    yield OURS_METHOD if report.steps else PEERS_METHOD
    if protocols.are_in(report):
        yield PROTOCOLS_METHOD
    for shape in report.shapes:
        yield from _shape(report, shape)
    if report.startup is not None:
        yield "## Start-up"
        yield "\n".join(f"* {line}" for line in describe_startup(report.startup))
    if report.steps:
        yield "## Where a request's time goes"
        yield STEPS_METHOD
        yield from (f"{each.model}:\n\n{table(steps.COLUMNS, steps.rows(each))}" for each in report.steps)
    if report.folding:
        yield "## What folding is worth"
        yield FOLDING_METHOD
        yield _folding(report)


def _goals(report: Report) -> str:
    rows = [(goal.goal, goal.measured, "yes" if goal.reached else "no") for goal in goals(report)]
    return table(("goal", "measured", "reached"), rows, left=frozenset({0, 1, 2}))


def _shape(report: Report, shape: Shape) -> Iterator[str]:
    yield f"## {shape.name}"
    yield describe_shape(report, shape)
    yield table(COLUMNS, [cells(row) for row in main_rows(report, shape)], left=frozenset({COLUMNS.index("server")}))
    paced = [tuple(paced_cells(row)) for row in report.paced_rows if row.model == shape.name]
    if paced:
        yield "At half the saturating rate, open loop:"
        yield table(PACED_COLUMNS, paced, left=frozenset({0, 1}))
    yield table(SERVER_COLUMNS, [tuple(cost_cells(cost)) for cost in report.costs if cost.model == shape.name])
    if protocols.are_in(report):
        yield "In other protocols:"
        place_of_server = protocols.COLUMNS.index("server")
        yield table(protocols.COLUMNS, protocols.rows(report, shape), left=frozenset({place_of_server}))


def _folding(report: Report) -> str:
    rows = [
        (
            gain.model,
            f"{gain.num_nodes_before} → {gain.num_nodes_after}",
            f"{gain.before_us:.1f}",
            f"{gain.after_us:.1f}",
            f"{gain.ratio:.2f}",
        )
        for gain in report.folding
    ]
    return table(("model", "nodes", "raw, µs", "folded, µs", "times as fast"), rows)
