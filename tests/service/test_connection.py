"""The short way below ASGI: it answers what ASGI answers, byte for byte, however the bytes arrive."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from service.app import App, create_app
from service.connection import IN_A_ROW, Connection, Limits, connections
from service.protocols.answer import Answer
from service.protocols.contract import Question
from service.protocols.paths import OWN
from service.settings import Settings
from tests.service.running_server import RunningServer, running_server
from tests.service.tiny_models import TinyModel, tiny_model, write_tiny_bundle

GOOD = b'{"instance":[1,2,3,4]}'
# What differs from one answer to the next.
OWN_LINES = re.compile(rb"(date|server-timing|x-request-id): [^\r]+\r\n")
LAST = b"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 22\r\n\r\n" + GOOD
ARGUMENTS = ("--device", "cpu", "--max-body-bytes", "20000", "--receive-seconds", "2")


def post(body: bytes, *lines: bytes, path: bytes = b"/predict") -> bytes:
    """Write a request as most clients do."""
    head = (b"POST " + path + b" HTTP/1.1", b"host: x", *lines, b"content-length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Pair:
    """The same models behind the short way and behind plain ASGI."""

    fast: RunningServer
    asgi: RunningServer

    def exchange(self, *pieces: bytes) -> tuple[bytes, bytes]:
        """Send both the same, and give what each answered, without what differs by itself."""
        fast, asgi = (OWN_LINES.sub(b"", exchange(server, *pieces)) for server in (self.fast, self.asgi))
        return fast, asgi


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    root: Path = tmp_path_factory.mktemp("models")
    write_tiny_bundle(root, tiny_model())
    write_tiny_bundle(root, tiny_model((16, 16)), name="wide")
    arguments = ("--models", str(root), "--default-model", "digits", *ARGUMENTS)
    with running_server(*arguments) as fast, running_server(*arguments, "--http", "asgi") as asgi:
        yield Pair(fast, asgi)


def connect(server: RunningServer, receive_buffer: int | None = None) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.settimeout(10)
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(server: RunningServer, *pieces: bytes) -> bytes:
    """Send the pieces one by one, then a last request, and read until the server closes."""
    with connect(server) as connection:
        with contextlib.suppress(ConnectionError):  # it may have had enough before all is sent
            for piece in (*pieces, LAST):
                connection.sendall(piece)
                time.sleep(0.001 if len(pieces) > 1 else 0)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    answers = b""
    try:
        while piece := connection.recv(65536):
            answers += piece
    except ConnectionResetError:
        pass
    return answers


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", answers)]


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20)
values: st.SearchStrategy[Any] = numbers | st.sampled_from([None, True, 1e39, 1e300, "1", [], -0.0])
texts = st.lists(values, max_size=6).map(lambda instance: json.dumps({"instance": instance}).encode())
wide = st.lists(numbers, min_size=256, max_size=256)
wide_texts = wide.map(lambda instance: json.dumps({"instance": instance}).encode())
nested_texts = wide.map(
    lambda flat: json.dumps({"instance": [flat[place : place + 16] for place in range(0, 256, 16)]}).encode()
)
marks = [b"[", b"]", b",", b"{", b"}", b":", b'"', b"-", b"0", b"e", b"\xef\xbb\xbf", b" ", b"null", b"instance"]


@st.composite
def spoilt(draw: st.DrawFn, good: st.SearchStrategy[bytes]) -> bytes:
    """Take a few bytes out of a good text, and put others in."""
    text = draw(good)
    for _ in range(draw(st.integers(0, 3))):
        place, length = draw(st.integers(0, len(text))), draw(st.integers(0, 3))
        text = text[:place] + draw(st.sampled_from([b"", *marks])) + text[place + length :]
    return text


bodies = st.binary(max_size=12) | spoilt(texts) | st.just(GOOD) | st.just(b" " * 20_001)
wide_bodies = spoilt(wide_texts | nested_texts)
headers = st.sampled_from([
    (),
    (b"content-type: application/json",),
    (b"Content-Type: application/json; charset=UTF-8", b"accept: */*"),
    (b"content-type: text/csv",),
    (b"content-type: text/csv", b"content-type: application/json"),
    (b"content-encoding: gzip",),
    (b"connection: keep-alive", b"traceparent: 00-1-2-3"),
    (b"expect: 100-continue",),
    (b"x: " + b"y" * 3000,),
])  # fmt: skip
small = st.builds(lambda body, lines: post(body, *lines), bodies, headers)
large = st.builds(lambda body: post(body, path=b"/models/wide/predict"), wide_bodies)
others = st.sampled_from([
    b"GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /predict HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /predict?a=b HTTP/1.1\r\nhost: x\r\ncontent-length: 22\r\n\r\n" + GOOD,
    b"POST /%70redict HTTP/1.1\r\nhost: x\r\ncontent-length: 22\r\n\r\n" + GOOD,
    b"POST http://x/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 22\r\n\r\n" + GOOD,
    b"POST /models/none/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /predict HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\r\n\r\n" + post(GOOD),
])  # fmt: skip
not_http = st.sampled_from([
    b"POST /predict HTTP/1.0\r\ncontent-length: 22\r\n\r\n" + GOOD,
    b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 22\r\ncontent-length: 5\r\n\r\n" + GOOD,
    b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"POST /predict HTTP/1.1\nhost: x\ncontent-length: 22\n\n" + GOOD,
    post(GOOD, b"transfer-encoding: chunked"),
    b"nonsense\r\n\r\n",
])  # fmt: skip
request_bytes = small | large | others | not_http


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=request_bytes)
def test_any_request_gets_the_same_bytes_either_way(pair: Pair, request: bytes) -> None:
    fast, asgi = pair.exchange(request)
    assert fast == asgi


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(small | others, min_size=2, max_size=6))
def test_requests_sent_at_once_are_answered_in_their_order(pair: Pair, requests: list[bytes]) -> None:
    """All of them HTTP: what is not makes uvicorn forget the answers that are due before."""
    fast, asgi = pair.exchange(b"".join(requests))
    assert fast == asgi


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=request_bytes, places=st.lists(st.floats(0, 1), max_size=3))
def test_it_does_not_matter_in_which_pieces_a_request_arrives(pair: Pair, request: bytes, places: list[float]) -> None:
    cuts = [0, *sorted(int(place * len(request)) for place in places), len(request)]
    fast, asgi = pair.exchange(*(request[a:b] for a, b in itertools.pairwise(cuts)))
    assert fast == asgi


def test_a_request_cut_in_two_anywhere_is_answered(pair: Pair) -> None:
    request = post(GOOD, b"content-type: application/json")
    whole = OWN_LINES.sub(b"", exchange(pair.fast, request))
    assert statuses(whole) == [200, 200]
    for place in range(1, len(request)):
        assert OWN_LINES.sub(b"", exchange(pair.fast, request[:place], request[place:])) == whole


def test_a_thousand_requests_sent_at_once_are_all_answered(pair: Pair) -> None:
    answers = exchange(pair.fast, post(GOOD) * 500 + post(b"{") * 500)
    assert statuses(answers) == [200] * 500 + [400] * 500 + [200]


def test_who_expects_to_be_asked_for_the_body_is_asked(pair: Pair) -> None:
    head, _, body = post(GOOD, b"expect: 100-continue").partition(b"\r\n\r\n")
    with connect(pair.fast) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_connection_serves_request_after_request(pair: Pair) -> None:
    with pair.fast.client() as client:
        answers = {client.post("/predict", content=GOOD).content for _ in range(500)}
        assert client.get("/health/ready").status_code == 200
        assert {client.post("/predict", content=GOOD).content for _ in range(10)} == answers
    assert len(answers) == 1


@pytest.mark.parametrize(
    "begun",
    [
        b"POST /pre",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 22\r\n\r\n{",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
        post(GOOD) + b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 22\r\n\r\n{",
        b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n" + post(GOOD)[:-1],
    ],
)
def test_who_sends_too_slowly_is_told_so_and_dropped(pair: Pair, begun: bytes) -> None:
    with connect(pair.fast) as connection:
        connection.sendall(begun)
        answers = read_all(connection)
    assert statuses(answers)[-1] == 408
    assert b"request_timeout" in answers


def test_what_has_been_answered_is_not_called_late(pair: Pair) -> None:
    with connect(pair.fast) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 22\r\n\r\n{")
        assert statuses(read_all(connection)) == [404]


@pytest.mark.parametrize("http", ["fast", "asgi"])
def test_while_it_drains_each_answer_says_goodbye(digits: TinyModel, tmp_path: Path, http: str) -> None:
    write_tiny_bundle(tmp_path, digits)
    request = post(b'{"instance":[' + b",".join([b"1"] * 64) + b"]}")
    arguments = ("--models", str(tmp_path), "--device", "cpu", "--drain-seconds", "2", "--http", http)
    with running_server(*arguments) as server, connect(server) as connection:
        connection.sendall(request)
        before = connection.recv(65536)
        server.process.terminate()
        time.sleep(0.5)
        connection.sendall(request)
        after = read_all(connection)
        assert server.process.wait(timeout=30) == 0
    assert b"connection: close\r\n" not in before
    assert b"connection: close\r\n" in after
    assert statuses(before + after) == [200, 200]


def test_who_has_said_all_still_gets_the_answer(pair: Pair) -> None:
    """A client that shuts down its sending side, as `nc` does."""
    for count in (1, 10, 100):
        with connect(pair.fast) as connection:
            connection.sendall(post(GOOD) * count)
            connection.shutdown(socket.SHUT_WR)
            assert statuses(read_all(connection)) == [200] * count


def test_who_does_not_read_the_answers_is_not_read_either(pair: Pair) -> None:
    request = post(GOOD)
    with connect(pair.fast, receive_buffer=4096) as connection:
        connection.settimeout(1.0)
        sent = send_until_refused(connection, request * 1000)
        assert sent < 100_000_000
        connection.settimeout(10)
        answers, num_asked = b"", sent // len(request)
        while answers.count(b"HTTP/1.1 200 OK") < min(num_asked, 1000):
            answers += connection.recv(1 << 20)


def send_until_refused(connection: socket.socket, data: bytes) -> int:
    """Send until the other side has taken nothing for as long as the connection waits; give the number of bytes."""
    sent = 0
    try:
        while True:
            sent += connection.send(data[sent % len(data) :])
    except TimeoutError:
        return sent


def test_a_server_that_is_stopped_answers_what_has_begun(digits: TinyModel, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, digits)
    request = post(b'{"instance":[' + b",".join([b"1"] * 64) + b"]}")
    with running_server("--models", str(tmp_path), "--device", "cpu") as server, connect(server) as connection:
        connection.sendall(request[:-10])
        time.sleep(0.2)
        server.process.terminate()
        time.sleep(0.3)
        connection.sendall(request[-10:])
        answer = read_all(connection)
        assert server.process.wait(timeout=30) == 0
    assert statuses(answer) == [200]
    assert b"connection: close\r\n" in answer


def test_ten_thousand_requests_over_many_connections_get_one_answer(pair: Pair) -> None:
    request = post(GOOD)

    async def ask(count: int) -> set[bytes]:
        host, port = pair.fast.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        answers = set()
        for _ in range(count):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            answers.add(await reader.readexactly(int(length[1])))
        writer.close()
        await writer.wait_closed()
        return answers

    async def main() -> set[bytes]:
        return set().union(*await asyncio.gather(*(ask(250) for _ in range(40))))

    assert len(asyncio.run(main())) == 1


def test_who_sends_too_much_can_read_that_it_was_too_much(pair: Pair) -> None:
    body = b" " * 3_000_000
    connection = http.client.HTTPConnection(pair.fast.url.removeprefix("http://"), timeout=10)
    connection.request("POST", "/predict", body)
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["code"] == "body_too_large"
    connection.close()


def test_a_wish_for_http_2_is_passed_over_and_the_request_answered(pair: Pair) -> None:
    """Java's client has that wish with its first request."""
    wishes = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    fast, asgi = pair.exchange(post(GOOD, *wishes))
    assert statuses(fast) == [200, 200]
    assert fast == asgi


@pytest.mark.parametrize("way", ["fast", "asgi"])
def test_a_head_without_an_end_is_refused_in_size_and_in_time(pair: Pair, way: str) -> None:
    server: RunningServer = getattr(pair, way)
    with connect(server) as connection:
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                connection.sendall(b"POST /predict HTTP/1.1\r\n" if not _ else b"a: " + b"b" * 1000 + b"\r\n")
        assert statuses(read_all(connection)) in ([431], [])
    with connect(server) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost:")
        assert statuses(read_all(connection)) == [408]


# --- in this process, to look inside ---------------------------------------------------------------------------------

Begin = Callable[[], Any]


@asynccontextmanager
async def listening(app: App, **config: Any) -> AsyncIterator[tuple[int, ServerState]]:
    """Serve the app's predictions with our connections, in this event loop."""
    state, loop = ServerState(), asyncio.get_running_loop()
    loaded = uvicorn.Config(app, log_config=None, **config)
    limits = Limits(header_seconds=1.0, receive_seconds=1.0, write_seconds=1.0, max_connections=100)
    create = connections(app.directory.lane, app.gate, limits=limits)
    async with app.running():
        server = await loop.create_server(lambda: create(loaded, state, {}), "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1], state
        server.close()


def make_app(root: Path) -> App:
    write_tiny_bundle(root, tiny_model())
    return create_app(Settings(models=root, device="cpu"))


def test_a_connection_that_nobody_uses_is_closed(tmp_path: Path) -> None:
    async def main() -> tuple[float, bytes]:
        async with listening(make_app(tmp_path), timeout_keep_alive=1) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(GOOD))
            begin = time.perf_counter()
            answer = await reader.read()
            writer.close()
            return time.perf_counter() - begin, answer

    seconds, answer = asyncio.run(main())
    assert statuses(answer) == [200]
    assert 1 <= seconds < 10


def test_nothing_is_computed_for_who_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.scheduler.MAX_INLINE_SECONDS", 0.0)

    async def main() -> tuple[int, int]:
        app = make_app(tmp_path)
        async with listening(app) as (port, state):
            thread = app.directory.find("digits").runner.thread
            assert thread is not None
            blocker = thread.submit(time.sleep, 0.5)
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(GOOD))
            await asyncio.sleep(0.1)
            asked = sum(isinstance(one, Connection) and one._asked is not None for one in state.connections)
            writer.transport.abort()
            await blocker
            await thread.submit(time.sleep, 0)
            await asyncio.sleep(0)
            return asked, state.total_requests

    assert asyncio.run(main()) == (1, 0)


def test_who_sends_very_much_at_once_leaves_the_others_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_a_row: list[int] = []
    go_on = Connection._go_on

    def watch(self: Connection) -> None:
        before = self.server_state.total_requests
        go_on(self)
        in_a_row.append(self.server_state.total_requests - before)

    async def main() -> int:
        app = make_app(tmp_path)
        async with listening(app) as (port, state):
            app.directory.find("digits").runner._tick = None  # all is answered where it arrives
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(GOOD) * 800)
            writer.write_eof()
            answers = await reader.read()
            writer.close()
            return answers.count(b"HTTP/1.1 200 OK") if state.total_requests == 800 else 0

    monkeypatch.setattr(Connection, "_go_on", watch)
    assert asyncio.run(main()) == 800
    assert max(in_a_row) == IN_A_ROW


def test_a_long_model_s_answer_begins_the_time_that_a_connection_may_be_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.scheduler.MAX_INLINE_SECONDS", 0.0)

    async def main() -> float:
        app = make_app(tmp_path)
        async with listening(app) as (port, state):
            thread = app.directory.find("digits").runner.thread
            assert thread is not None
            thread.submit(time.sleep, 0.5)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(GOOD))
            await reader.read(1000)
            (connection,) = state.connections
            assert isinstance(connection, Connection)
            since, arrived = connection._since, connection._arrived
            writer.close()
            return since - arrived

    assert asyncio.run(main()) > 0.3


def test_what_is_wrong_with_a_long_body_is_said_in_a_thread(tmp_path: Path) -> None:
    body = b'{"instance":[' + b",".join([b"1"] * 20_000) + b"]}"

    async def main() -> tuple[bool, Any, Any]:
        app = make_app(tmp_path)
        async with app.running():
            served = app.directory.find("digits")
            delivered = asyncio.get_running_loop().create_future()
            at_once = served.lanes[OWN].ask(Question(body), delivered.set_result)
            expected = served.runner.answer(served.lanes[OWN].contract, Question(body))
            return isinstance(at_once, Answer), await delivered, expected

    at_once, answer, expected = asyncio.run(main())
    assert not at_once
    assert answer == expected
    assert answer.status == 422


def test_a_bug_is_answered_as_json_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    async def main() -> bytes:
        app = make_app(tmp_path)
        async with listening(app) as (port, _):
            monkeypatch.setattr(app.directory.find("digits").lanes[OWN].contract, "try_read", bug)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(GOOD))
            answer = await reader.read(1000)
            writer.close()
            return answer

    answer = asyncio.run(main())
    assert statuses(answer) == [500]
    assert b"ZeroDivisionError" not in answer
    assert "ZeroDivisionError" in caplog.text
