"""One connection: predictions are answered where their bytes arrive, everything else goes the way of uvicorn and ASGI.

For a small network, what ASGI makes for each request (a scope, a task, events, futures) costs several times what the
prediction does. So this class, which uvicorn makes for each connection (its `http=` setting), looks at each request
first. A plain POST to a path that predicts is taken (`heads.py` says what is plain), its lane is asked, its answer is
written in one piece. What is not plain is passed on, untouched, to uvicorn's own protocol below this class, which
answers it through the very same lane: the bytes are the same either way.

Requests of one connection are answered one after the other, in their order. What arrives behind one that is still in
the works is held back, and if that is much, no longer read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.answers import AnswerWriter
from service.errors import NotReady
from service.gate import Gate
from service.heads import END, MAX_BYTES, Head, leave_upgrades_out, read_head
from service.protocols.answer import Answer
from service.protocols.contract import Headers, Question
from service.protocols.http_errors import answer_error, answer_status
from service.protocols.lane import Lane, too_large
from service.protocols.runner import Withdraw, nothing_to_withdraw
from service.request_ids import name_request
from service.spinning import Spinning

CHECKS_PER_LIMIT = 4
IN_A_ROW = 8
MAX_HEAD_BYTES = 64 * 1024
LINGER_SECONDS = 0.5
LAST_MOMENT_SECONDS = 0.05  # at shutdown, for what was sent before the client could know


def connections(
    find: Callable[[str], Lane | None], gate: Gate, *, limits: Limits, spin_seconds: float = 0.0
) -> Callable[..., Connection]:
    """What uvicorn makes for each connection; `find` gives the lane of a path that predicts, as it is at the time."""
    spinning = Spinning(spin_seconds)
    return partial(Connection, find=find, gate=gate, limits=limits, spinning=spinning, writers={})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a request's head, and all of it, may take to arrive, and an answer to be read; in seconds."""

    header_seconds: float
    receive_seconds: float
    write_seconds: float
    max_connections: int


class Taken:
    """A prediction that was taken: its head, and of its body what has arrived."""

    __slots__ = ("head", "parts")

    def __init__(self, head: Head, part: bytes) -> None:
        self.head = head
        self.parts = bytearray(part)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, with a shorter way for predictions."""

    def __init__(  # noqa: PLR0913 - the first four are uvicorn's
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        find: Callable[[str], Lane | None],
        gate: Gate,
        limits: Limits,
        spinning: Spinning,
        writers: dict[ServerState, AnswerWriter],
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._find = find
        self._gate = gate
        self._limits = limits
        self._spinning = spinning
        self._writer = writers.setdefault(server_state, AnswerWriter(server_state))
        self._between = True  # the parser below stands between two messages
        self._upgraded = False
        self._held = b""  # what has arrived
        self._start = 0  # from where on it is not looked at yet
        self._taken: Taken | None = None  # the prediction whose body is still arriving
        self._asked: Lane | None = None  # whose answer is in the works
        self._withdraw: Withdraw | None = None
        self._headers = Headers()  # of the prediction that is in the works, or was last
        self._arrived = 0.0  # when the prediction that is in the works was here whole
        self._yielding = False  # there is more to look at, after the others' turn
        self._closing = False  # after the last answer
        self._is_lingering = False  # after the last answer: what still comes is passed over
        self._num_to_pass_over = 0
        self._num_head_bytes = 0  # of a head whose end has not come
        self._is_headed = False  # the parser below has seen the head of its message
        self._since = time.perf_counter()  # the last answer, or the first byte of what is arriving
        self._cycles: list[Any] = []  # what uvicorn has begun and not finished
        self._unread_since = 0.0  # of what was written, something waits since then
        self._watch: asyncio.TimerHandle | None = None

    # --- what arrives ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            self._refuse_connection()
            return
        self._watch = self.loop.call_later(self._watch_seconds(), self._check_time)

    def _refuse_connection(self) -> None:
        """Say that there are too many, and close."""
        full = answer_error(NotReady(f"{self._limits.max_connections} connections are open already: try again in 1 s"))
        self.transport.write(self._writer.write(full, time.perf_counter(), name_request(b""), close=True))
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived, or hold it if something is in the works."""
        if self._is_lingering:
            self._pass_over(len(data))
            return
        if self._held:
            data, self._start = self._held[self._start :] + data, 0
        self._held = data
        if self._is_free():
            self._go_on()
        elif self._holds_much():
            self.flow.pause_reading()

    def _is_free(self) -> bool:
        """May the next request be looked at?"""
        return self._asked is None and not self._yielding and not self.flow.write_paused

    def _go_on(self) -> None:
        """Look at what is held, one request after the other, until one is in the works or all is looked at.

        After a few of them it is the others' turn: a client may send thousands at once.
        """
        for _ in range(IN_A_ROW):
            if not self._held or not self._is_free() or self.transport.is_closing():
                break
            self._look()
        if self._held and self._is_free():
            self._yielding = True
            self.loop.call_soon(self._come_back)
        elif self._closing and not self._held and self._asked is None and self._taken is None:
            super().shutdown()

    def _come_back(self) -> None:
        self._yielding = False
        self._go_on()
        self._read_again()

    def _read_again(self) -> None:
        if not (self.transport.is_closing() or self.flow.write_paused or self._holds_much()):
            self.flow.resume_reading()

    def _look(self) -> None:
        data, start = self._held, self._start
        self._held, self._start = b"", 0
        if self._taken is not None:
            self._complete(self._taken, data)
        else:
            self._begin(data, start)

    def _begin(self, data: bytes, start: int) -> None:
        """Take a prediction that begins at `start`, or pass all that there is on."""
        if self._between and not self._upgraded and (self.cycle is None or self.cycle.response_complete):
            body = data.find(END, start, start + MAX_BYTES) + len(END)
            head = read_head(data[start:body]) if body >= len(END) else None
            lane = self._find(head.path) if head is not None else None
            if head is not None and lane is not None and self._gate.refuse_predicting(head.headers) is None:
                if head.content_length <= lane.max_body_bytes:
                    self._take(head, lane, data, body)
                else:
                    self._refuse_large(head, lane, num_arrived=len(data) - body)
                return
            data, start = leave_upgrades_out(data, start), 0
        self._pass_on(data[start:] if start else data)

    def _pass_on(self, data: bytes) -> None:
        """Leave it to uvicorn, unless it is a head without an end."""
        super().data_received(data)
        if self._between or self._is_headed:
            self._num_head_bytes = 0
            return
        self._num_head_bytes += len(data)
        if self._num_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            long = answer_status(431, f"the head of the request is longer than {MAX_HEAD_BYTES} bytes")
            self.transport.write(self._writer.write(long, time.perf_counter(), name_request(b""), close=True))
            self.transport.close()

    def _refuse_large(self, head: Head, lane: Lane, *, num_arrived: int) -> None:
        """Say that a body is too large before it comes.

        The connection stays until it has come, or for a moment: a client that is closed upon while it sends sees its
        connection reset, and never reads why.
        """
        self._arrived = time.perf_counter()
        self._headers = head.headers
        answer = lane.refuse(too_large(f"{head.content_length} bytes", lane.max_body_bytes))
        request_id = name_request(head.headers.request_id)
        lane.count(answer, self._arrived, self._headers, request_id)
        self._is_lingering = True
        self.transport.write(self._writer.write(answer, self._arrived, request_id, close=True))
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
        self._num_to_pass_over = head.content_length
        self._pass_over(num_arrived)

    def _pass_over(self, num_bytes: int) -> None:
        self._num_to_pass_over -= num_bytes
        if self._num_to_pass_over <= 0:
            self.transport.close()

    def _take(self, head: Head, lane: Lane, data: bytes, start: int) -> None:
        """Take a prediction whose body begins at `start`."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        stop = start + head.content_length
        if len(data) < stop:
            self._since = time.perf_counter()
            self._taken = Taken(head, data[start:])
            return
        self._hold(data, stop)
        self._ask(head, lane, data[start:stop])

    def _complete(self, taken: Taken, data: bytes) -> None:
        """Add what has arrived to a prediction that was taken."""
        missing = taken.head.content_length - len(taken.parts)
        taken.parts += data[:missing]
        if len(data) < missing:
            return
        self._taken = None
        self._hold(data, missing)
        lane = self._find(taken.head.path)  # while the body arrived, another version may have come
        if lane is None:
            self._answer_gone(taken.head)
        else:
            self._ask(taken.head, lane, bytes(taken.parts))

    def _holds_much(self) -> bool:
        return len(self._held) - self._start > HIGH_WATER_LIMIT

    def _hold(self, data: bytes, start: int) -> None:
        if len(data) > start:
            self._held, self._start = data, start

    # --- what is answered --------------------------------------------------------------------------------------------

    def _ask(self, head: Head, lane: Lane, body: bytes) -> None:
        self._arrived = time.perf_counter()
        self._spinning.arrived()
        self._headers = head.headers
        asked = lane.ask(Question(body, head.headers), self._deliver, self._arrived)
        if isinstance(asked, Answer):
            self._answer(lane, asked)
            self._spinning.answered()
        else:
            self._asked, self._withdraw = lane, asked

    def _answer_gone(self, head: Head) -> None:
        """Say that the model was unloaded while the request arrived."""
        gone = answer_status(404, f"POST {head.path[:200]}: what was served there has just been unloaded")
        name = name_request(head.headers.request_id)
        self.transport.write(self._writer.write(gone, time.perf_counter(), name, close=True))
        self.transport.close()

    def _deliver(self, answer: Answer) -> None:
        """Take the answer that was in the works, and go on with what has arrived meanwhile."""
        lane, self._asked = self._asked, None
        if lane is None or self.transport.is_closing():
            return
        self._answer(lane, answer)
        self._since = time.perf_counter()
        self._go_on()
        self._read_again()

    def _answer(self, lane: Lane, answer: Answer) -> None:
        request_id = name_request(self._headers.request_id)
        lane.count(answer, self._arrived, self._headers, request_id)
        self._since = self._arrived
        self.server_state.total_requests += 1
        is_last = (self._closing and not self._held) or self._writer.closes()
        self.transport.write(self._writer.write(answer, self._arrived, request_id, close=is_last))
        if is_last:
            self.transport.close()

    # --- the ends ----------------------------------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        """Compute nothing more for a client who has gone."""
        super().connection_lost(exc)
        for cycle in self._cycles:  # uvicorn tells its newest one only, and an older one would write to nobody
            cycle.disconnected = True
            cycle.message_event.set()
        self._cycles = []
        self._held = b""
        if self._watch is not None:
            self._watch.cancel()
        if self._asked is not None and self._withdraw is not None:
            self._asked = None
            self._withdraw()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection of a client who only says that no more requests will come, if its answer is at hand.

        A client who has gone says the same. So what waits for a thread, or for its turn, is not computed for it.
        """
        self._closing = self._withdraw is nothing_to_withdraw if self._asked is not None else bool(self._held)
        return self._closing

    def shutdown(self) -> None:
        """Answer what is under way, or on its way to us, then close."""
        self._closing = True
        if self._taken is None and self._asked is None and not self._held:
            self.loop.call_later(LAST_MOMENT_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self._taken is None and self._asked is None and not self._held:
            super().shutdown()

    # --- how long it may take ----------------------------------------------------------------------------------------

    def _check_time(self) -> None:
        """Close a connection on which nothing was asked for long, or where a request takes too long to arrive."""
        self._watch = self.loop.call_later(self._watch_seconds(), self._check_time)
        now = time.perf_counter()
        seconds = now - self._since
        if self.flow.write_paused:
            if now - self._unread_since > self._limits.write_seconds:
                self.transport.abort()
        elif self._is_receiving():
            if seconds > self._receiving_limit():
                self._give_up()
        elif self._is_idle() and seconds > self.timeout_keep_alive:
            self.transport.close()

    def _watch_seconds(self) -> float:
        limits = self._limits
        shortest = min(limits.header_seconds, limits.receive_seconds, limits.write_seconds)
        return min(shortest, float(self.timeout_keep_alive)) / CHECKS_PER_LIMIT

    def _receiving_limit(self) -> float:
        is_headed = self._taken is not None or self._is_headed
        limits = self._limits
        return limits.receive_seconds if is_headed else min(limits.header_seconds, limits.receive_seconds)

    def _is_receiving(self) -> bool:
        return self._taken is not None or not self._between

    def _is_idle(self) -> bool:
        return self._asked is None and (self.cycle is None or self.cycle.response_complete)

    def _give_up(self) -> None:
        """Close, and say why, unless the request that does not end has been answered already."""
        is_answered = self._taken is None and self._is_headed and self.cycle.response_started
        if not is_answered:
            late = answer_status(408, f"the request is not here whole after {self._receiving_limit():g} seconds")
            self.transport.write(self._writer.write(late, self._since, name_request(b""), close=True))
        self.transport.close()

    # --- what uvicorn's parser says ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Note that uvicorn's parser is in a message."""
        self._between = self._is_headed = False
        self._since = time.perf_counter()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Leave a connection alone that asks for another protocol; remember what uvicorn works on."""
        self._is_headed = True
        self._upgraded = self._upgraded or self.parser.should_upgrade()
        super().on_headers_complete()
        self._cycles = [cycle for cycle in (*self._cycles, self.cycle) if cycle and not cycle.response_complete]

    def on_message_complete(self) -> None:
        """Note that uvicorn's parser is between messages."""
        self._between = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note when uvicorn has answered."""
        self._since = time.perf_counter()
        super().on_response_complete()

    # --- how much may wait -------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Take no more requests from a client who does not read the answers."""
        super().pause_writing()
        self._unread_since = time.perf_counter()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._go_on()
        self._read_again()
