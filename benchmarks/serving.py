"""`make bench`: the service beside a no-op ASGI app and the tutorial's FastAPI, interleaved in one run.

`python -m benchmarks.serving [--quick] [--peers] [--rounds 3] [--seconds 2] [--connections 1,16,64] [--out FILE]`

The service is asked by `/predict`, and in the other protocols that it speaks, which have a table of their own.
With `--peers` (`make bench-peers`) it runs beside LitServe, BentoML, MLServer and mosec. Each kind's result goes to one
file that the next run overwrites: a number in the README has one place that it comes from, and git remembers the older
ones. `--quick` only shows that everything works, so it writes nothing unless it is told where.
"""

from __future__ import annotations

import datetime as dt
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.cast import FOLDSERVE, IN_OTHER_PROTOCOLS, Peer, cast
from benchmarks.cores import load_cores, on_cores, server_cores
from benchmarks.dialects import Dialect
from benchmarks.environments import prepare
from benchmarks.errors import BenchmarkError
from benchmarks.folding import FoldingGain, measure_folding
from benchmarks.generator import Order
from benchmarks.load import apply_load, find_wrk
from benchmarks.machine import describe_machine
from benchmarks.markdown import render
from benchmarks.models import SHAPES, BuiltModel, Shape, build_model
from benchmarks.paced import apply_pace
from benchmarks.processes import family, memory_bytes
from benchmarks.report import Cost, Lengths, Report
from benchmarks.requests import Requests, make_requests
from benchmarks.rounds import Inside, PacedSlot, Plan, Slot, slots
from benchmarks.servers import Server, answer_length, check_answers, running
from benchmarks.startup import measure_startup
from benchmarks.steps import measure_steps
from benchmarks.summary import PacedWindow, Window
from benchmarks.terminal import show
from benchmarks.usage import read_usage

RESULTS = Path(__file__).parent / "results"
WARM_UP_SECONDS = 1
QUICK_INSIDE = Inside(num_starts=1, num_blocks=2, num_folding_blocks=2)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that one shape is measured with: its servers, running and checked, and each one's bodies in a file."""

    built: BuiltModel
    servers: dict[str, Server]
    bodies: dict[str, Path]
    lengths: tuple[Lengths, ...]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found in one scene."""

    windows: tuple[Window, ...]
    paced: tuple[PacedWindow, ...]
    costs: tuple[Cost, ...]
    lengths: tuple[Lengths, ...]


def run_benchmark(plan: Plan, shapes: tuple[Shape, ...], console: Console) -> Report:
    """Build the models, start the servers, check them, measure them.

    Raises:
        BenchmarkError: there is nothing that could be measured, or a number would not mean what it says.
    """
    find_wrk()
    environments = tuple(peer.environment for peer in plan.peers if peer.environment is not None)
    for environment in environments:
        prepare(environment, console)
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder:
        models = {shape.name: build_model(shape, Path(folder)) for shape in shapes}
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("measuring", total=len(models) * len(list(slots(plan))))
            found = {
                name: _run_scene(built, plan, Path(folder), lambda: progress.advance(task))
                for name, built in models.items()
            }
        report = Report(
            date=dt.datetime.now(dt.UTC).date().isoformat(),
            command=shlex.join(["python", "-m", "benchmarks.serving", *sys.argv[1:]]),
            machine=describe_machine(environments),
            shapes=shapes,
            lengths=tuple(lengths for each in found.values() for lengths in each.lengths),
            windows=tuple(window for each in found.values() for window in each.windows),
            paced_windows=tuple(window for each in found.values() for window in each.paced),
            costs=tuple(cost for each in found.values() for cost in each.costs),
        )
        return report if plan.inside is None else _look_inside(report, list(models.values()), plan.inside)


def _look_inside(report: Report, models: list[BuiltModel], inside: Inside) -> Report:
    """Add what is measured without load; of start-up the last model's, the smallest."""
    return replace(
        report,
        folding=tuple(_measure_folding(built, inside.num_folding_blocks) for built in models),
        steps=tuple(measure_steps(built, num_blocks=inside.num_blocks) for built in models),
        startup=measure_startup(models[-1], num_starts=inside.num_starts),
    )


def _measure_folding(built: BuiltModel, num_blocks: int) -> FoldingGain:
    with on_cores(server_cores()):
        return measure_folding(built, num_blocks=num_blocks)


def _run_scene(built: BuiltModel, plan: Plan, folder: Path, advance: Callable[[], None]) -> Found:
    windows: list[Window] = []
    paced: list[PacedWindow] = []
    with _scene(built, plan.peers, folder) as scene:
        for slot in slots(plan):
            if isinstance(slot, Slot):
                windows.append(_measure(scene, slot, plan.seconds if slot.round else WARM_UP_SECONDS))
            else:
                paced.append(_measure_paced(scene, slot, plan, _saturating(windows, slot)))
            advance()
        return Found(
            windows=tuple(window for window in windows if window.round > 0),
            paced=tuple(paced),
            costs=tuple(_cost(scene, peer) for peer in plan.peers if peer not in IN_OTHER_PROTOCOLS),
            lengths=scene.lengths,
        )


@contextmanager
def _scene(built: BuiltModel, peers: tuple[Peer, ...], folder: Path) -> Iterator[Scene]:
    """The floors are started last: they answer as many bytes as the service does in their dialect."""
    requests = {peer.name: make_requests(built, dialect=peer.dialect) for peer in peers}
    servers: dict[str, Server] = {}
    answer_bytes: dict[Dialect, int] = {}
    with ExitStack() as stack:
        for peer in sorted(peers, key=_place_in_start):
            asked, wanted = requests[peer.name], answer_bytes.get(peer.dialect, 0)
            servers[peer.name] = server = stack.enter_context(
                running(peer, built, asked.bodies[0], answer_bytes=wanted)
            )
            answer_bytes[peer.dialect] = wanted or answer_length(server, asked)
            check_answers(server, asked, answer_bytes=wanted)
        yield Scene(
            built=built,
            servers=servers,
            bodies={name: each.write(folder / f"{built.shape.name}-{name}.hex") for name, each in requests.items()},
            lengths=tuple(_lengths(built, peer, requests[peer.name], answer_bytes[peer.dialect]) for peer in peers),
        )


def _place_in_start(peer: Peer) -> tuple[bool, bool]:
    """Ours come before others that speak the same: it is their answers' length that a floor has to know."""
    return (peer.is_floor, peer != FOLDSERVE)


def _lengths(built: BuiltModel, peer: Peer, requests: Requests, answer_bytes: int) -> Lengths:
    return Lengths(model=built.shape.name, peer=peer.name, body_bytes=requests.median_bytes, answer_bytes=answer_bytes)


def _measure(scene: Scene, slot: Slot, seconds: int) -> Window:
    server = scene.servers[slot.peer.name]
    before = read_usage(server.pid)
    measured = apply_load(
        server.url,
        scene.bodies[slot.peer.name],
        connections=slot.connections,
        seconds=seconds,
        headers=slot.peer.dialect.headers,
        cores=load_cores(slot.peer.workers),
    )
    return Window(
        model=scene.built.shape.name,
        connections=slot.connections,
        peer=slot.peer.name,
        round=slot.round,
        measured=measured,
        usage=read_usage(server.pid) - before,
    )


def _saturating(windows: list[Window], slot: PacedSlot) -> float:
    """The highest rate that this server reached in this round."""
    own = [window for window in windows if (window.round, window.peer) == (slot.round, slot.peer.name)]
    return max(window.measured.requests_per_second for window in own)


def _measure_paced(scene: Scene, slot: PacedSlot, plan: Plan, saturating: float) -> PacedWindow:
    order = Order(
        url=scene.servers[slot.peer.name].url,
        bodies=str(scene.bodies[slot.peer.name]),
        rate=saturating / 2,
        connections=max(plan.connections),
        seconds=plan.seconds,
        arrivals=slot.arrivals,
        seed=slot.round,
        headers=slot.peer.dialect.headers,
    )
    return PacedWindow(
        model=scene.built.shape.name,
        peer=slot.peer.name,
        round=slot.round,
        arrivals=slot.arrivals,
        rate=order.rate,
        paced=apply_pace(order, cores=load_cores(slot.peer.workers)),
    )


def _cost(scene: Scene, peer: Peer) -> Cost:
    server = scene.servers[peer.name]
    return Cost(
        model=scene.built.shape.name,
        peer=peer.name,
        memory_bytes=memory_bytes(family(server.pid)),
        start_seconds=server.start_seconds,
    )


def main(  # noqa: PLR0913 - one for each option
    *,
    quick: Annotated[bool, typer.Option("--quick", help="one second a window, to see that it works")] = False,
    peers: Annotated[bool, typer.Option("--peers", help="beside LitServe, BentoML, MLServer and mosec")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="how often each server is measured")] = Plan.rounds,
    seconds: Annotated[int, typer.Option(min=1, help="how long each time")] = Plan.seconds,
    connections: Annotated[str, typer.Option(help="how many at once, separated by commas")] = "1,16,64",
    out: Annotated[
        Path | None, typer.Option(help="the Markdown file [default: serving.md or peers.md in benchmarks/results]")
    ] = None,
) -> None:
    """Measure the service beside a no-op ASGI app, the tutorial's FastAPI, and other model servers if asked to."""
    plan = Plan(rounds=rounds, seconds=seconds, connections=_numbers(connections), inside=None if peers else Inside())
    if quick:
        plan = Plan(rounds=1, seconds=1, connections=(16,), inside=None if peers else QUICK_INSIDE)
    console = Console()
    try:
        report = run_benchmark(replace(plan, peers=cast(with_peers=peers)), SHAPES, console)
    except BenchmarkError as err:
        Console(stderr=True).print(f"benchmark: {err}", highlight=False, markup=False)
        raise typer.Exit(1) from err
    show(report, console)
    place = out or (None if quick else RESULTS / ("peers.md" if peers else "serving.md"))
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
