"""`make bench`: the service beside a no-op ASGI app and the tutorial's FastAPI, interleaved in one run.

`python -m benchmarks.serving [--quick] [--rounds 3] [--seconds 3] [--connections 1,16,64] [--out FILE]`

The result goes to one file that the next run overwrites: a number in the README has one place that it comes from, and
git remembers the older ones. `--quick` only shows that everything works, so it writes nothing unless it is told where.
"""

from __future__ import annotations

import datetime as dt
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from benchmarks.cores import load_core, on_core, server_core
from benchmarks.errors import BenchmarkError
from benchmarks.folding import FoldingGain, measure_folding
from benchmarks.load import apply_load, find_wrk
from benchmarks.machine import describe_machine
from benchmarks.markdown import render
from benchmarks.models import SHAPES, BuiltModel, build_model
from benchmarks.report import Report
from benchmarks.requests import make_requests
from benchmarks.rounds import Plan, Slot, slots
from benchmarks.servers import FOLDSERVE, PEERS, Server, answer_length, check_answers, command_of, running
from benchmarks.summary import Window
from benchmarks.terminal import show
from benchmarks.usage import read_usage

RESULT = Path(__file__).parent / "results" / "serving.md"
QUICK = Plan(rounds=1, seconds=1, connections=(16,))
WARM_UP_SECONDS = 1


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that one shape is measured with: its peers, running and checked, and the bodies in a file."""

    built: BuiltModel
    servers: dict[str, Server]
    bodies: Path
    body_bytes: int
    answer_bytes: int


def run_benchmark(plan: Plan, console: Console) -> Report:
    """Build the models, start the peers, check them, measure them.

    Raises:
        BenchmarkError: there is nothing that could be measured, or a number would not mean what it says.
    """
    find_wrk()
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder, ExitStack() as stack:
        models = [build_model(shape, Path(folder)) for shape in SHAPES]
        folding = tuple(_measure_folding(built) for built in models)
        scenes = [stack.enter_context(_scene(built, Path(folder))) for built in models]
        todo = [(scene, slot) for scene in scenes for slot in slots(plan)]
        windows = [_measure(*one, plan.seconds) for one in track(todo, "measuring", console=console, transient=True)]
    return Report(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        command=shlex.join(["python", "-m", "benchmarks.serving", *sys.argv[1:]]),
        machine=describe_machine(),
        shapes=SHAPES,
        body_bytes={scene.built.shape.name: scene.body_bytes for scene in scenes},
        answer_bytes={scene.built.shape.name: scene.answer_bytes for scene in scenes},
        windows=tuple(window for window in windows if window.round > 0),
        folding=folding,
    )


def _measure_folding(built: BuiltModel) -> FoldingGain:
    with on_core(server_core()):
        return measure_folding(built)


@contextmanager
def _scene(built: BuiltModel, folder: Path) -> Iterator[Scene]:
    """The service is started first: the floor answers as many bytes as it does."""
    requests = make_requests(built)
    with ExitStack() as stack:

        def start(peer: str, answer_bytes: int) -> Server:
            return stack.enter_context(running(peer, command_of(peer, built, answer_bytes), core=server_core()))

        service = start(FOLDSERVE, 0)
        answer_bytes = answer_length(service, requests)
        others = {peer: start(peer, answer_bytes) for peer in PEERS if peer != FOLDSERVE}
        servers = {FOLDSERVE: service, **others}
        for server in servers.values():
            check_answers(server, requests, answer_bytes=answer_bytes)
        yield Scene(
            built=built,
            servers=servers,
            bodies=requests.write(folder / f"{built.shape.name}-bodies.txt"),
            body_bytes=requests.median_bytes,
            answer_bytes=answer_bytes,
        )


def _measure(scene: Scene, slot: Slot, seconds: int) -> Window:
    server = scene.servers[slot.peer]
    before = read_usage(server.process.pid)
    measured = apply_load(
        server.url,
        scene.bodies,
        connections=slot.connections,
        seconds=seconds if slot.round else WARM_UP_SECONDS,
        core=load_core(),
    )
    after = read_usage(server.process.pid)
    return Window(
        model=scene.built.shape.name,
        connections=slot.connections,
        peer=slot.peer,
        round=slot.round,
        measured=measured,
        usage=after - before if before and after else None,
    )


def main(
    quick: Annotated[bool, typer.Option("--quick", help="one second a window, to see that it works")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="how often each server is measured")] = Plan.rounds,
    seconds: Annotated[int, typer.Option(min=1, help="how long each time")] = Plan.seconds,
    connections: Annotated[str, typer.Option(help="how many at once, separated by commas")] = "1,16,64",
    out: Annotated[Path | None, typer.Option(help="the Markdown file [default: benchmarks/results/serving.md]")] = None,
) -> None:
    """Measure the service beside a no-op ASGI app and the tutorial's FastAPI."""
    plan = QUICK if quick else Plan(rounds=rounds, seconds=seconds, connections=_numbers(connections))
    console = Console()
    try:
        report = run_benchmark(plan, console)
    except BenchmarkError as err:
        Console(stderr=True).print(f"benchmark: {err}", highlight=False, markup=False)
        raise typer.Exit(1) from err
    show(report, console)
    place = out or (None if quick else RESULT)
    if place is not None:
        place.write_text(render(report), encoding="utf-8")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(map(int, text.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(f"--connections: expected numbers such as 1,16,64, got {text!r}")
    return numbers


if __name__ == "__main__":
    typer.run(main)
