"""The way of a request in one protocol to one model version, whoever carries it: asked once, answered once.

ASGI (`hot_path.py`), the connection below it (`service/connection.py`) and gRPC all ask here, so that there is one way
to an answer, and no second one that could answer otherwise.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from service.errors import BodyTooLarge, FoldserveError, RequestInvalid
from service.metrics import Recorder
from service.protocols.answer import Answer
from service.protocols.bugs import answer_bug
from service.protocols.compression import is_plain, unpack
from service.protocols.contract import MAX_INLINE_BYTES, Contract, Headers, Question, Work
from service.protocols.runner import NO_DEADLINE, Call, Deliver, Runner, Withdraw, too_late
from service.repository import ServedModel
from service.scheduler import OwnThread

MAX_TIMEOUT_SECONDS = 1e6  # more no clock can be set to

Result = TypeVar("Result")
# What is done with a thread's result: an answer, or one that is delivered later.
Then = Callable[[Result, Deliver], Answer | Withdraw]


class Journal(Protocol):
    """Notes requests that were answered: in a log, as a trace. Unless it `notes_successes` they need not be told it."""

    notes_successes: bool

    def note(self, lane: Lane, answer: Answer, arrived: float, headers: Headers, request_id: bytes) -> None:
        """Note a request that was answered now."""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """What a request needs: who reads and writes it, where the model runs, who counts, how long a body may be.

    `reader` is the thread where long bodies that are unusual or wrong are read, and compressed ones unpacked, whatever
    the model.
    """

    protocol: str
    contract: Contract
    runner: Runner
    reader: OwnThread
    metrics: Recorder
    max_body_bytes: int
    journal: Journal | None = None

    @property
    def model(self) -> ServedModel:
        """The model version that answers."""
        return self.runner.model

    def ask(self, question: Question, deliver: Deliver, arrived: float | None = None) -> Answer | Withdraw:
        """Answer at once, or give back how to withdraw the request; then `deliver` is called, once, with the answer.

        It is called in the event loop, after this function has returned. Never raises: a bug is an answer too. The
        request has arrived now, or at `arrived` by `time.perf_counter`.
        """
        try:
            return self._ask(question, deliver, time.perf_counter() if arrived is None else arrived)
        except FoldserveError as err:
            return self.contract.refuse(err)
        except Exception as err:  # noqa: BLE001 - whatever it is, a client waits for an answer
            return answer_bug(err)

    def count(self, answer: Answer, arrived: float, headers: Headers, request_id: bytes) -> None:
        """Count, and perhaps log, a request that arrived whole at `arrived` and is answered now."""
        self.metrics.record(answer, time.perf_counter() - arrived, arrived)
        if self.journal is not None and (answer.status != 200 or self.journal.notes_successes):
            self.journal.note(self, answer, arrived, headers, request_id)

    def refuse(self, error: FoldserveError) -> Answer:
        """Say in the protocol's form why there is no answer."""
        return self.contract.refuse(error)

    def _ask(self, question: Question, deliver: Deliver, arrived: float) -> Answer | Withdraw:
        headers = question.headers
        deadline = arrived + read_timeout(headers.timeout) if headers.timeout else NO_DEADLINE
        if not is_plain(headers.content_encoding):
            unpacked = self.reader.submit(self._unpack, question)
            return self._go_on(unpacked, deliver, deadline, lambda plain, later: self.ask(plain, later, arrived))
        if self.runner.thread is not None:
            return self._ask_thread(self.runner.thread, question, deliver, arrived, deadline)
        work = self.contract.try_read(question)
        if work is None and len(question.body) <= MAX_INLINE_BYTES:
            work = self.contract.read(question)
        if work is not None:
            if deadline == NO_DEADLINE and work.timeout_seconds is None:  # as nearly all are
                return self.runner.run(Call(work, self.contract, time.perf_counter()), deliver)
            return self._run(work, deliver, arrived, deadline)
        read = self.reader.submit(self.contract.read, question)
        return self._go_on(read, deliver, deadline, lambda work, later: self._run(work, later, arrived, deadline))

    def _run(self, work: Work, deliver: Deliver, arrived: float, deadline: float) -> Answer | Withdraw:
        if work.timeout_seconds is not None:
            deadline = min(deadline, arrived + work.timeout_seconds)
        return self.runner.run(Call(work, self.contract, time.perf_counter(), deadline), deliver)

    def _ask_thread(
        self, thread: OwnThread, question: Question, deliver: Deliver, arrived: float, deadline: float
    ) -> Withdraw:
        """Have a long model's thread read and answer."""
        answer = thread.submit(self.runner.answer, self.contract, question, arrived, deadline)
        return self._go_on(answer, deliver, deadline, lambda answer, _: answer)

    def _go_on(self, result: asyncio.Future[Result], deliver: Deliver, deadline: float, then: Then[Result]) -> Withdraw:
        """Go on with what a thread gives. If the time is over before, that is the answer."""
        if deadline < NO_DEADLINE:
            seconds = max(deadline - time.perf_counter(), 0.0)
            alarm = asyncio.get_running_loop().call_later(seconds, self._give_up, result, deliver)
            result.add_done_callback(lambda _: alarm.cancel())
        return _Later(self.contract, deliver).wait(result, then)

    def _give_up(self, result: asyncio.Future[Result], deliver: Deliver) -> None:
        if result.cancel():
            deliver(self.contract.refuse(too_late()))

    def _unpack(self, question: Question) -> Question:
        headers = question.headers
        body = unpack(question.body, headers.content_encoding, self.max_body_bytes)
        return question._replace(body=body, headers=headers._replace(content_encoding=b""))


class _Later:
    """An answer that waits for a thread, and then perhaps for the model."""

    def __init__(self, contract: Contract, deliver: Deliver) -> None:
        self._contract = contract
        self._deliver = deliver
        self._withdraw: Withdraw | None = None

    def wait(self, result: asyncio.Future[Result], then: Then[Result]) -> Withdraw:
        """Go on with what the thread gives; give how to withdraw whatever is waited for at the time."""
        self._withdraw = result.cancel
        result.add_done_callback(partial(self._go_on, then))
        return self.withdraw

    def withdraw(self) -> None:
        """Compute nothing more for a client who has gone."""
        if self._withdraw is not None:
            self._withdraw()

    def _go_on(self, then: Then[Result], result: asyncio.Future[Result]) -> None:
        if result.cancelled():
            return
        try:
            asked = then(result.result(), self._deliver)
        except FoldserveError as err:
            asked = self._contract.refuse(err)
        except Exception as err:  # noqa: BLE001 - whatever it is, a client waits for an answer
            asked = answer_bug(err)
        if isinstance(asked, Answer):
            self._deliver(asked)
        else:
            self._withdraw = asked


def read_timeout(value: bytes) -> float:
    """Read how many seconds a client waits for its answer.

    Raises:
        RequestInvalid: that is no positive number.
    """
    try:
        seconds = math.nan if b"_" in value else float(value)
    except ValueError:
        seconds = math.nan
    if seconds > 0:
        return min(seconds, MAX_TIMEOUT_SECONDS)
    shown = value.decode("latin-1")[:40]
    raise RequestInvalid(
        f"x-request-timeout: expected a positive number of seconds, got {shown!r}",
        field="x-request-timeout",
        expected="a positive number of seconds",
        got=shown,
    )


def too_large(got: str, max_body_bytes: int) -> BodyTooLarge:
    """Say that a body is larger than allowed."""
    expected = f"at most {max_body_bytes} bytes"
    return BodyTooLarge(f"the body is too large: expected {expected}, got {got}", expected=expected, got=got)
