"""Open-loop load: each request is sent when it is due, and its latency counts from then, whatever the server does.

A generator that waits for an answer before it sends the next request asks a stalled server nothing, and so measures
nothing while it stalls ("coordinated omission"). Here the times are drawn before the first request; one that finds no
connection free waits for one, and that time counts. `python -m benchmarks.generator '<an Order as JSON>'` writes what
it measured as one line of JSON.

It spins: a sleep ends up to a millisecond late, which is more than what is to be measured. So it wants a core of its
own. `late` is by how much it looked at due requests too late itself; `paced` refuses a window where that is no small
part of the latencies, for it says nothing about the server.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httptools
import msgspec
import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks.body_file import read_bodies
from benchmarks.dialects import JSON, Headers

Arrivals = Literal["even", "poisson"]
Seconds = NDArray[np.float64]

PATIENCE_SECONDS = 10.0  # how long after the last request its answer is waited for
CLOCK = time.perf_counter


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One window to measure: `rate` requests a second, over so many connections; `bodies` is a file (`body_file`)."""

    url: str
    bodies: str
    rate: float
    connections: int
    seconds: float
    arrivals: Arrivals
    seed: int
    headers: Headers = JSON


class Paced(msgspec.Struct, frozen=True, kw_only=True):
    """What a window of open-loop load measured: requests answered, errors by kind, latencies and lateness in µs."""

    requests: int
    p50: float
    p99: float
    p999: float
    longest: float
    late_p50: float
    late_p99: float
    errors: dict[str, int]


def draw_schedule(rate: float, seconds: float, arrivals: Arrivals, seed: int) -> Seconds:
    """When requests are due, in seconds from the start: at equal distances, or as independent clients send."""
    count = max(1, round(rate * seconds))
    if arrivals == "even":
        return np.arange(count) / rate
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def format_requests(url: str, headers: Headers, bodies: Sequence[bytes]) -> list[bytes]:
    """Write the requests as they go over the wire."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{name}: {value}" for name, value in headers)]
    head = "\r\n".join([*lines, "Content-Length: "])
    return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request on its way: `number`, or -1 while it warms up."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport
        self.number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def send(self, number: int, request: bytes) -> None:
        """Send the request of this number."""
        self.number = number
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Let the parser find the answer's end."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Pass on that the parser found it."""
        self._window.answered(self, self._parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Pass it on."""
        self._window.lost()


class Window:
    """When each request was due, looked at and answered, in seconds from the start; and which connections are free."""

    def __init__(self, requests: Sequence[bytes], schedule: Seconds) -> None:
        self._requests = requests
        self._due: list[float] = schedule.tolist()
        self._next = 0
        self._looked_at = [0.0] * len(self._due)
        self._answered_at = [0.0] * len(self._due)
        self._start = 0.0
        self._free: deque[Connection] = deque()
        self._waiting: deque[int] = deque()
        self._errors: dict[str, int] = {}
        self._unanswered = 0
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()

    async def warm_up(self, connections: Sequence[Connection]) -> None:
        """Let each connection ask once."""
        self._unanswered = len(connections)
        for place, connection in enumerate(connections):
            connection.send(-1, self._requests[place % len(self._requests)])
        await asyncio.wait_for(self._done, PATIENCE_SECONDS)

    async def follow(self) -> None:
        """Follow the schedule to its end, and wait for the last answer."""
        self._unanswered, self._done = len(self._due), self._loop.create_future()
        self._start = CLOCK()
        self._tick()
        try:
            await asyncio.wait_for(self._done, self._due[-1] + PATIENCE_SECONDS)
        except TimeoutError:
            self._errors["unanswered"] = self._unanswered

    def _tick(self) -> None:
        """Send what is due, and come back in the loop's next pass."""
        now = CLOCK() - self._start
        while self._next < len(self._due) and self._due[self._next] <= now:
            self._looked_at[self._next] = now
            self._dispatch(self._next)
            self._next += 1
            now = CLOCK() - self._start
        if not self._done.done():
            self._loop.call_soon(self._tick)

    def _dispatch(self, number: int) -> None:
        if self._free:
            self._free.popleft().send(number, self._requests[number % len(self._requests)])
        else:
            self._waiting.append(number)

    def answered(self, connection: Connection, status: int) -> None:
        """Note the time, and give the connection the next request that waits for one."""
        if connection.number >= 0:
            self._answered_at[connection.number] = CLOCK() - self._start
        if status != 200:
            self._errors["status"] = self._errors.get("status", 0) + 1
        self._free.append(connection)
        if self._waiting:
            self._dispatch(self._waiting.popleft())
        self._unanswered -= 1
        if not self._unanswered:
            self._done.set_result(None)

    def lost(self) -> None:
        """A connection is gone: the window is worth nothing any more."""
        self._errors["connection"] = self._errors.get("connection", 0) + 1
        if not self._done.done():
            self._done.set_result(None)

    def measured(self) -> Paced:
        """Latencies from when requests were due, and by how much we were late."""
        due = np.array(self._due)
        p50, p99, p999, longest = _percentiles(np.array(self._answered_at) - due, 50, 99, 99.9, 100)
        late_p50, late_p99 = _percentiles(np.array(self._looked_at) - due, 50, 99)
        return Paced(
            requests=len(due) - self._unanswered,
            p50=p50,
            p99=p99,
            p999=p999,
            longest=longest,
            late_p50=late_p50,
            late_p99=late_p99,
            errors=self._errors,
        )


def _percentiles(seconds: Seconds, *ranks: float) -> list[float]:
    """In µs, each one that was really measured."""
    return [float(value) * 1e6 for value in np.percentile(seconds, ranks, method="inverted_cdf")]


async def measure(order: Order) -> Paced:
    """Open the connections, let each answer once, follow the schedule."""
    schedule = draw_schedule(order.rate, order.seconds, order.arrivals, order.seed)
    window = Window(format_requests(order.url, order.headers, read_bodies(Path(order.bodies))), schedule)
    parts, loop = urlsplit(order.url), asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: Connection(window), parts.hostname or "", parts.port or 80)
        for _ in range(order.connections)
    ]
    await window.warm_up([connection for _, connection in opened])
    gc.collect()
    gc.disable()
    await window.follow()
    return window.measured()


if __name__ == "__main__":
    order = msgspec.json.decode(sys.argv[1], type=Order)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(measure(order))) + b"\n")
