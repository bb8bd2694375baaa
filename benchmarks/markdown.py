"""A report for the repository: Markdown, with all that is needed to judge the numbers and to take them again."""

from __future__ import annotations

from benchmarks.models import Shape
from benchmarks.report import COLUMNS, Report, cells, describe_shape, headlines, noise
from benchmarks.tables import table

METHOD = """\
One server process on one core, `wrk` on another where there is one, keep-alive connections over loopback, each with one
request on its way at a time; 64 different bodies. Before it is timed, each server's answers are compared with ONNX
Runtime's. All servers run under uvicorn with httptools and uvloop. `floor` is a no-op ASGI app that reads the same body
and answers as many bytes. `tutorial` is FastAPI with a `def` endpoint, pydantic in and out, ONNX Runtime's defaults; by
these ONNX Runtime binds a spinning thread to every other core, so `tutorial-1` is there too, the same on one thread.
The servers take turns within each round; numbers are medians over rounds, `spread` is (max − min)/median of req/s, and
a ratio (of req/s) is the median of those within the rounds. `CPU µs` is what the server's process used for a request,
all its threads together. A failed request would have ended the run."""

FOLDING_METHOD = """\
One instance at a time in ONNX Runtime, with the service's session options and without HTTP: the graph as it was
exported and the same graph folded, taking turns."""


def render(report: Report) -> str:
    """Write the report as Markdown."""
    return (
        "\n\n".join(
            [
                "# Serving, measured",
                "\n".join(f"* {line}" for line in headlines(report)),
                f"{report.date}, by `{report.command}`. {noise(report)}",
                _machine(report),
                METHOD,
                *(_shape(report, shape) for shape in report.shapes),
                "## What folding is worth",
                FOLDING_METHOD,
                _folding(report),
            ]
        )
        + "\n"
    )


def _machine(report: Report) -> str:
    return table(("machine", ""), list(report.machine.items()), left=frozenset({0, 1}))


def _shape(report: Report, shape: Shape) -> str:
    rows = [tuple(cells(row)) for row in report.rows if row.model == shape.name]
    laid_out = table(COLUMNS, rows, left=frozenset({COLUMNS.index("server")}))
    return f"## {shape.name}\n\n{describe_shape(report, shape)}\n\n{laid_out}"


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
