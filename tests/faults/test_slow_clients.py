"""Faults 10 to 13: clients that send slowly, leave early, do not read, or come back late. Good ones do not notice.

By how many milliseconds a good request is delayed is for benchmarks: here the bounds are those of a server that stalls.
"""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from service.server import KEEP_ALIVE_SECONDS
from tests.faults.standing import HEALTH_SECONDS, Standing, check_alive_and_right, check_prediction, num_files, standing
from tests.faults.wire import connected, exchange, head, is_closed, read_one, request

HEADER_SECONDS, RECEIVE_SECONDS, WRITE_SECONDS = 1.0, 2.0, 2.0  # of the fixture
SLACK_SECONDS = 3.0  # by how much a busy machine may be late
NUM_SLOW = 500
NUM_ASKED = 50


@contextmanager
def many_connected(url: str, count: int) -> Iterator[list[socket.socket]]:
    """Open many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 100:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 100), hard))
    with ExitStack() as stack:
        yield [stack.enter_context(connected(url)) for _ in range(count)]


# --- 10: they send slowly --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/predict", "/v2/models/digits/infer", "/health/live"])
def test_fault_10_a_head_that_comes_a_byte_at_a_time_is_cut_off(stand: Standing, path: str) -> None:
    pieces = [bytes([byte]) for byte in head(path, 10)[:60]]
    started = time.perf_counter()
    reply = exchange(stand.url, *pieces, pause=0.2)
    assert reply.status == 408
    assert time.perf_counter() - started < 60 * 0.2
    check_alive_and_right(stand)


def test_fault_10_a_head_that_stops_is_cut_off_in_time(stand: Standing) -> None:
    with connected(stand.url) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost:")
        started = time.perf_counter()
        assert is_closed(connection, within=HEADER_SECONDS + SLACK_SECONDS)
        assert time.perf_counter() - started > HEADER_SECONDS / 2
    check_alive_and_right(stand)


@pytest.mark.parametrize("lines", [(), ("transfer-encoding: chunked",)], ids=["length", "chunks"])
@pytest.mark.parametrize("path", ["/predict", "/v2/models/digits/infer", "/nothing"])
def test_fault_10_a_body_that_stops_is_cut_off_in_time(stand: Standing, path: str, lines: tuple[str, ...]) -> None:
    with connected(stand.url) as connection:
        connection.sendall(head(path, None if lines else 100, *lines))
        connection.sendall(b"5\r\n{    \r\n" if lines else b"{")
        assert is_closed(connection, within=RECEIVE_SECONDS + SLACK_SECONDS)
    check_alive_and_right(stand)


@pytest.mark.parametrize("sent", [b"", b"POST /predict HTTP/1.1\r\nhost: x\r\n", head("/predict", 1000) + b"{"])
def test_fault_10_hundreds_of_slow_clients_do_not_hold_up_a_good_one(stand: Standing, sent: bytes) -> None:
    with many_connected(stand.url, NUM_SLOW) as slow, httpx.Client(base_url=stand.url, timeout=30) as client:
        for connection in slow:
            connection.sendall(sent)
        seconds = [_time_prediction(client, stand) for _ in range(NUM_ASKED)]
        assert max(seconds) < HEALTH_SECONDS
        assert client.get("/health/ready").status_code == 200
    check_alive_and_right(stand)


def _time_prediction(client: httpx.Client, stand: Standing) -> float:
    started = time.perf_counter()
    assert client.post("/predict", content=stand.body()).status_code == 200
    return time.perf_counter() - started


# --- 11: they leave --------------------------------------------------------------------------------------------------

GOOD_HEAD = head("/predict", 300)


@pytest.mark.parametrize("when", ["before a word", "within the head", "within the body", "with the last byte"])
@pytest.mark.parametrize("how", ["politely", "by a reset"])
def test_fault_11_who_leaves_leaves_nothing_behind(stand: Standing, when: str, how: str) -> None:
    whole = request("/predict", stand.body())
    cut = {"before a word": 0, "within the head": 20, "within the body": len(whole) - 9, "with the last byte": None}
    files = num_files(stand.pid)
    for _ in range(20):
        with connected(stand.url) as connection:
            connection.sendall(whole[: cut[when]])
            if how == "by a reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_for_files(stand, files)
    assert num_waiting(stand) == 0
    check_alive_and_right(stand)


def wait_for_files(stand: Standing, count: int) -> None:
    """Wait until no more files are open than before."""
    until = time.perf_counter() + SLACK_SECONDS
    while num_files(stand.pid) > count:
        if time.perf_counter() > until:
            raise AssertionError(f"expected {count} open files, there are {num_files(stand.pid)}")
        time.sleep(0.05)


def num_waiting(stand: Standing) -> float:
    """What the metrics say of requests under way."""
    text = httpx.get(f"{stand.url}/metrics").text
    return sum(float(value) for value in re.findall(r"^foldserve_in_flight\{[^}]*\} (\S+)$", text, re.MULTILINE))


# --- 12: they do not read --------------------------------------------------------------------------------------------

SMALL_BUFFER = 4096
LONG_ANSWER = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n"


def test_fault_12_who_does_not_read_is_cut_off_and_costs_little(stand: Standing) -> None:
    """Requests are sent on and on, no answer is read: the server stops taking them, and then the connection."""
    asked = request("/predict", stand.body()) * 100
    with connected(stand.url, receive_buffer=SMALL_BUFFER) as connection:
        assert not _is_taken(connection, [asked] * 1000)
        check_prediction(stand)
        time.sleep(WRITE_SECONDS + SLACK_SECONDS / 2)
        assert _was_aborted(connection)
    check_alive_and_right(stand)


def _is_taken(connection: socket.socket, pieces: list[bytes]) -> bool:
    """Say if the server takes all that is sent, soon."""
    connection.settimeout(0.5)
    try:
        for piece in pieces:
            connection.sendall(piece)
    except OSError:  # full, or reset
        return False
    return True


def _was_aborted(connection: socket.socket) -> bool:
    """Say if the server has cut the connection."""
    connection.settimeout(SLACK_SECONDS)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def test_fault_12_a_long_answer_that_nobody_reads_is_dropped(stand: Standing) -> None:
    with connected(stand.url, receive_buffer=SMALL_BUFFER) as connection:
        connection.sendall(LONG_ANSWER * 10)  # more than the system keeps for a connection
        time.sleep(WRITE_SECONDS + SLACK_SECONDS)
        assert _was_aborted(connection)
    check_alive_and_right(stand)


# --- 13: they come back ----------------------------------------------------------------------------------------------


def test_fault_13_an_idle_connection_outlives_all_other_time_limits(stand: Standing) -> None:
    with connected(stand.url) as connection:
        for _ in range(2):
            connection.sendall(request("/predict", stand.body()))
            assert read_one(connection).status == 200
            time.sleep(max(HEADER_SECONDS, RECEIVE_SECONDS, WRITE_SECONDS) + 1.0)
        connection.sendall(request("/predict", stand.body()))
        assert read_one(connection).status == 200


def test_fault_13_it_outlives_that_of_the_usual_load_balancers_too() -> None:
    assert KEEP_ALIVE_SECONDS > 60


@pytest.mark.slow
def test_fault_13_an_idle_connection_is_closed_in_the_end_and_one_that_never_spoke(stand: Standing) -> None:
    with connected(stand.url) as silent, connected(stand.url) as idle:
        idle.sendall(request("/predict", stand.body()))
        assert read_one(idle).status == 200
        started = time.perf_counter()
        assert is_closed(idle, within=2 * KEEP_ALIVE_SECONDS)
        assert time.perf_counter() - started > 60
        assert is_closed(silent, within=SLACK_SECONDS + KEEP_ALIVE_SECONDS / 4)


# --- and too many at once --------------------------------------------------------------------------------------------


def test_fault_10_more_connections_than_allowed_are_refused_and_the_others_served(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with standing(tmp_path_factory.mktemp("models"), "--max-connections", "20") as few:
        with many_connected(few.url, 60) as connections:
            replies = [_ask_health(connection) for connection in connections]
        assert sorted(set(replies)) == [200, 503]
        assert replies.count(200) <= 20
        wait_for_files(few, num_files(few.pid))
        check_alive_and_right(few)


def _ask_health(connection: socket.socket) -> int:
    with contextlib.suppress(ConnectionError):  # it was refused, and closed, before it asked
        connection.sendall(head("/health/live", None, method="GET"))
    return read_one(connection).status
