"""Open-loop load: what is due is sent, what waits is counted, and a generator that was late is found out."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.body_file import write_bodies
from benchmarks.errors import LoadFailed
from benchmarks.generator import Arrivals, Order, Paced, draw_schedule
from benchmarks.paced import apply_pace, kept_pace

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
STALL_SECONDS = 0.2


class Stalling(socketserver.BaseRequestHandler):
    """Answers at once, but once: then everybody waits."""

    gate = threading.Lock()
    num_left = 100  # requests until the stall
    answer = OK

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while self.request.recv(4096):
            with Stalling.gate:
                Stalling.num_left -= 1
                if Stalling.num_left == 0:
                    time.sleep(STALL_SECONDS)
            self.request.sendall(self.answer)


@contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture
def bodies(tmp_path: Path) -> str:
    return str(write_bodies(tmp_path / "bodies.hex", [b"one", b"two"]))


def order(url: str, bodies: str, *, rate: float = 500.0, connections: int = 4, seconds: float = 1.0) -> Order:
    return Order(url=url, bodies=bodies, rate=rate, connections=connections, seconds=seconds, arrivals="even", seed=1)


def test_the_queue_behind_one_stall_shows(bodies: str) -> None:
    """0.2 s at 500 requests a second: 100 of 500 are due in the stall and wait for what is left of it.

    The hundredth part, five requests, waits for 0.19 s and more. Had each connection asked only after its answer, four
    of 500 would have been slow, and p99 as low as ever.
    """
    Stalling.num_left = 100
    with serving(Stalling) as url:
        paced = apply_pace(order(url, bodies))
    assert (paced.requests, paced.errors) == (500, {})
    assert paced.longest >= STALL_SECONDS * 1e6
    assert paced.p99 >= 0.9 * STALL_SECONDS * 1e6
    assert paced.p50 < 0.25 * STALL_SECONDS * 1e6


def test_a_server_that_is_too_slow_is_seen_to_fall_behind(bodies: str) -> None:
    """One connection, 10 ms an answer, asked 200 times a second: the last of 60 waits for half of what it took."""

    class Slow(Stalling):
        def handle(self) -> None:
            while self.request.recv(4096):
                time.sleep(0.01)
                self.request.sendall(OK)

    with serving(Slow) as url:
        paced = apply_pace(order(url, bodies, rate=200.0, connections=1, seconds=0.3))
    assert paced.requests == 60
    assert paced.longest >= (0.6 - 0.3) * 1e6
    assert kept_pace(paced)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(OK.replace(b"200 OK", b"500 Oh"), "status"), (b"", "connection"), (b"HTTP/1.1 200 OK\r\n", "connection")],
)
def test_an_answer_that_is_no_success_ends_the_run(answer: bytes, said: str, bodies: str) -> None:
    class Bad(Stalling):
        num_asked = 0

        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(OK)  # the one that warms up
            while self.request.recv(4096):
                self.request.sendall(answer)
                if said == "connection":
                    return

    with serving(Bad) as url, pytest.raises(LoadFailed, match=said):
        apply_pace(order(url, bodies, seconds=0.1))


def test_a_generator_that_fails_says_why(bodies: str) -> None:
    with pytest.raises(LoadFailed, match=r"generator failed.*Connection refused"):
        apply_pace(order("http://127.0.0.1:9/", bodies))


def paced(p50: float, p99: float, late_p99: float) -> Paced:
    return Paced(requests=1, p50=p50, p99=p99, p999=p99, longest=p99, late_p50=0, late_p99=late_p99, errors={})


def test_a_window_whose_generator_was_late_says_nothing() -> None:
    assert kept_pace(paced(100, 400, late_p99=100))
    assert not kept_pace(paced(100, 400, late_p99=101))
    assert not kept_pace(msgspec.structs.replace(paced(100, 400, late_p99=0), late_p50=26))


@pytest.mark.parametrize("arrivals", ["even", "poisson"])
def test_a_schedule_has_the_rate_that_was_asked_for(arrivals: Arrivals) -> None:
    """Of 40,000 independent arrivals the time of the last is off by 0.5 % (1 / √40,000), four times that at most."""
    schedule = draw_schedule(2000.0, 20.0, arrivals, seed=7)
    assert len(schedule) == 40_000
    assert (np.diff(schedule) >= 0).all()
    assert schedule[-1] == pytest.approx(20.0, rel=0.02)


def test_independent_arrivals_are_as_irregular_as_they_should_be() -> None:
    """Distances of a Poisson process have a standard deviation as large as their mean; and the seed decides."""
    distances = np.diff(draw_schedule(1000.0, 20.0, "poisson", seed=7))
    assert distances.std() == pytest.approx(distances.mean(), rel=0.05)
    assert (draw_schedule(1000.0, 1.0, "poisson", seed=7) == draw_schedule(1000.0, 1.0, "poisson", seed=7)).all()
    assert not (draw_schedule(1000.0, 1.0, "poisson", seed=7) == draw_schedule(1000.0, 1.0, "poisson", seed=8)).any()
