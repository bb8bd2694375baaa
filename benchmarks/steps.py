"""What one prediction costs by its steps, in µs: `python -m benchmarks.steps`, and part of `make bench`.

The service's own functions, each in a loop of its own, on the server's core; once for a request alone and once for
several that run together. In such a loop everything is warm and branches are predicted: a live server that sleeps
between requests takes two to four times as long for the same work, one under load about as long.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from uvicorn.server import ServerState

from benchmarks.cores import on_cores, server_cores
from benchmarks.models import SHAPES, BuiltModel, build_model
from benchmarks.requests import make_requests
from benchmarks.tables import table
from service.answers import AnswerWriter
from service.app import create_app
from service.heads import read_head
from service.protocols.answer import Answer
from service.protocols.contract import Headers, Question
from service.protocols.lane import Lane
from service.protocols.paths import OWN
from service.protocols.runner import Call
from service.request_ids import name_request
from service.scheduler import Tick
from service.settings import read_settings

JSON_HEADERS = Headers(content_type=b"application/json")
TOGETHER = 16
NUM_BLOCKS = 30
CALLS_PER_BLOCK = 200
COLUMNS = ("step", "alone, µs", f"of {TOGETHER} together, µs")


@dataclass(frozen=True)
class Steps:
    """µs of each step for a request alone, and for one of `TOGETHER` that run together."""

    model: str
    alone: dict[str, float]
    together: dict[str, float]


def measure_steps(built: BuiltModel, *, num_blocks: int = NUM_BLOCKS) -> Steps:
    """Measure the steps of this model's predictions."""
    with on_cores(server_cores()):
        return uvloop.run(_measure(built, num_blocks))


async def _measure(built: BuiltModel, num_blocks: int) -> Steps:
    app = create_app(read_settings(["--models", str(built.bundle.directory), "--device", "cpu"]))
    async with app.running():
        lane = app.directory.find_default().lanes[OWN]
        bodies = make_requests(built, TOGETHER).bodies
        alone = await _steps(lane, bodies[:1], num_blocks)
        return Steps(built.shape.name, alone, await _steps(lane, bodies, num_blocks))


async def _steps(lane: Lane, bodies: Sequence[bytes], num_blocks: int) -> dict[str, float]:
    """All steps of so many requests, µs for one of them. What is computed is what was parsed, and so on."""
    writer, head, count = AnswerWriter(ServerState()), _head(bodies[0]), len(bodies)
    arrived, questions = time.perf_counter(), [Question(body, JSON_HEADERS) for body in bodies]
    calls_read = [Call(lane.contract.read(question), lane.contract, time.perf_counter()) for question in questions]
    packed = [call.work.instances[0] for call in calls_read]
    answers = lane.runner.answer_all(calls_read)
    received, sent = _time_sockets(head + bodies[0], writer.write(answers[0], arrived, name_request(b"")), num_blocks)
    calls: dict[str, Callable[[], object]] = {
        "head": lambda: [read_head(head) for _ in bodies],
        "parse: JSON to an array's bytes": lambda: [lane.contract.try_read(question) for question in questions],
        "infer: copy in, run": lambda: _infer(lane, packed),
        "infer and encode": lambda: lane.runner.answer_all(calls_read),
        "count": lambda: _count(lane, answers, arrived),
        "answer's head": lambda: [writer.write(answer, arrived, name_request(b"")) for answer in answers],
    }
    times = {step: microseconds / count for step, microseconds in _time(calls, num_blocks).items()}
    return {
        "receive: recv()": received,
        "head": times["head"],
        "parse: JSON to an array's bytes": times["parse: JSON to an array's bytes"],
        "queue: the tick": await _time_tick(count, num_blocks),
        "infer: copy in, run": times["infer: copy in, run"],
        "encode: scores to JSON": times["infer and encode"] - times["infer: copy in, run"],
        "count": times["count"],
        "answer's head": times["answer's head"],
        "send: send()": sent,
    }


def _head(body: bytes) -> bytes:
    lines = ("POST /predict HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()


def _infer(lane: Lane, packed: Sequence[bytes]) -> None:
    batches = lane.model.batches
    for start in range(0, len(packed), batches.largest):
        batches.compute(packed[start : start + batches.largest])


def _count(lane: Lane, answers: Sequence[Answer], arrived: float) -> None:
    for answer in answers:
        lane.count(answer, arrived, JSON_HEADERS, b"1")


async def _time_tick(together: int, num_blocks: int) -> float:
    """What the tick costs a request, the event loop's part with it: where nothing is computed, and nothing delivered.

    A tick knows whether requests came one by one or together, so each block begins with a new one.
    """
    blocks = []
    for _ in range(num_blocks):
        ticks = [Tick[int, int](list) for _ in range(CALLS_PER_BLOCK // together)]
        start = time.perf_counter()
        for tick in ticks:
            for number in range(together):
                tick.add(number, _ignore)
        await asyncio.sleep(0)
        blocks.append((time.perf_counter() - start) / (len(ticks) * together) * 1e6)
    return statistics.median(blocks)


def _ignore(_: object) -> None:
    """Where an answer is of no interest."""


def _time_sockets(request: bytes, answer: bytes, num_blocks: int) -> tuple[float, float]:
    """µs of the two system calls of a request, on a connection over loopback."""
    received, sent = [], []
    with _connection() as (client, server):
        for _ in range(num_blocks * CALLS_PER_BLOCK // 10):
            client.sendall(request)
            received.append(_clock(lambda: server.recv(len(request))))
            sent.append(_clock(lambda: server.send(answer)))
            client.recv(len(answer))
    return statistics.median(received), statistics.median(sent)


@contextmanager
def _connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client, server


def _time(calls: dict[str, Callable[[], object]], num_blocks: int) -> dict[str, float]:
    """µs of each call, medians over blocks; all take turns."""
    blocks = [{name: _time_block(call) for name, call in calls.items()} for _ in range(num_blocks)]
    return {name: statistics.median(block[name] for block in blocks) for name in calls}


def _time_block(call: Callable[[], object], times: int = CALLS_PER_BLOCK) -> float:
    return _clock(lambda: [call() for _ in range(times)]) / times


def _clock(call: Callable[[], object]) -> float:
    """µs of one call."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e6


def rows(steps: Steps) -> list[tuple[str, str, str]]:
    """The table's rows, in the order of `COLUMNS`, and the sum."""
    each = [(step, steps.alone[step], steps.together[step]) for step in steps.alone]
    total = ("all of these", sum(steps.alone.values()), sum(steps.together.values()))
    return [(name, f"{alone:.2f}", f"{together:.2f}") for name, alone, together in (*each, total)]


def main() -> None:
    """Print a table for each shape."""
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder:
        for shape in SHAPES:
            steps = measure_steps(build_model(shape, Path(folder)))
            console.print(f"{shape.name}\n\n{table(COLUMNS, rows(steps))}\n", markup=False, highlight=False)


if __name__ == "__main__":
    main()
