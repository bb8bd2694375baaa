"""Runs what requests ask of one model version, whatever protocol they speak: together, in turns, or in its thread.

A lone instance runs where its request was read, several of one tick run as one batch. A request of many instances
takes the event loop for a slice at a time, so that others get their turn. A long model has a thread of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from service.errors import BodyTooLarge, DeadlineExceeded, DeviceLost, FoldserveError, Overloaded
from service.protocols.answer import Answer, Times
from service.protocols.bugs import answer_bug
from service.protocols.contract import Contract, Outputs, Question, Work
from service.repository import ServedModel
from service.scheduler import OwnThread, Tick

Deliver = Callable[[Answer], None]
# Takes a request back that has not been answered yet: nobody waits for it any more.
Withdraw = Callable[[], object]
Compute = Callable[[Sequence[bytes]], Outputs]

SLICE_SECONDS = 1e-3
MAX_SLICED = 64
MAX_ANSWER_NUMBERS = 500_000  # some megabytes of JSON, written in one go
NO_DEADLINE = float("inf")


class Call(NamedTuple):
    """A request that was read: what it asks for, who writes its answer, when it was read, until when it is wanted."""

    work: Work
    contract: Contract
    read_at: float
    deadline: float = NO_DEADLINE


class Runner:
    """Runs one model version. To be used from one event loop; `answer` from where the model runs.

    `count` is told how many instances run together; `on_lost`, from the thread that runs, that the device is lost.
    """

    def __init__(
        self,
        model: ServedModel,
        thread: OwnThread | None,
        *,
        max_waiting: int,
        count: Callable[[int], None],
        on_lost: Callable[[DeviceLost], None],
    ) -> None:
        self.model = model
        self.thread = thread
        self._sliced: deque[_Slices] = deque()
        self._numbers_each = sum(math.prod(spec.shape) for spec in model.predictor.signature.outputs)
        compute = partial(_compute_counted, model.batches.compute, count, on_lost)
        self._compute = partial(_compute_all, compute, model.batches.largest)
        self._tick: Tick[Call, Answer] | None = None
        # Calls of one instance each: each is answered as it would be alone, but in as few runs as can be.
        self.answer_all: Callable[[Sequence[Call]], list[Answer]] = partial(
            _answer_tick, compute, model.batches.outputs_at
        )
        if thread is None and model.batches.largest > 1:
            self._tick = Tick(self.answer_all, max_waiting=max_waiting)

    def num_queued(self) -> int:
        """Count the requests that wait for the model."""
        in_tick = self._tick.num_waiting() if self._tick is not None else 0
        return in_tick + (self.thread.num_waiting() if self.thread is not None else 0)

    def num_in_flight(self) -> int:
        """Count the requests that wait for the model, or that it works on."""
        return self.num_queued() + len(self._sliced) + (self.thread.num_running() if self.thread is not None else 0)

    def run(self, call: Call, deliver: Deliver) -> Answer | Withdraw:
        """Run on the event loop: give the answer, or how to withdraw it if it is delivered later.

        Raises:
            Overloaded: too many wait already.
            DeadlineExceeded: nobody wants the answer any more.
        """
        work, _, _, deadline = call
        if len(work.instances) > 1:
            return self._slice(call, deliver)
        if deadline < NO_DEADLINE:
            refuse_late(deadline)
        if self._tick is None:
            return _answer_alone(self._compute, call)
        return self._tick.add(call, deliver) or nothing_to_withdraw

    def answer(
        self, contract: Contract, question: Question, arrived: float = 0.0, deadline: float = NO_DEADLINE
    ) -> Answer:
        """Read a request that arrived at `arrived`, and answer it; in the thread where the model runs."""
        try:
            refuse_late(deadline)
            work = contract.try_read(question) or contract.read(question)
            if work.timeout_seconds is not None:
                refuse_late(arrived + work.timeout_seconds)
            self._check_size(work)
            return _answer_alone(self._compute, Call(work, contract, time.perf_counter()))
        except FoldserveError as err:
            return contract.refuse(err)

    def _check_size(self, work: Work) -> None:
        """Refuse what would be answered with more than a client can mean.

        Raises:
            BodyTooLarge: the outputs of so many instances are too many numbers.
        """
        count = len(work.instances)
        if count > 1 and count * self._numbers_each > MAX_ANSWER_NUMBERS:
            most = max(MAX_ANSWER_NUMBERS // self._numbers_each, 1)
            expected, got = f"at most {most} instances of this model in one request", f"{count}"
            raise BodyTooLarge(f"expected {expected}, got {got}", expected=expected, got=got)

    def _slice(self, call: Call, deliver: Deliver) -> Answer | Withdraw:
        """Compute the first slice at once; if that is not all, the rest when it is its turn."""
        self._check_size(call.work)
        if len(self._sliced) >= MAX_SLICED:
            raise Overloaded(f"{len(self._sliced)} requests of many instances wait already", retry_after_seconds=1)
        slices = _Slices(self._compute, self.model.batches.largest, call, deliver)
        if not self._sliced:
            answer = slices.run()
            if answer is not None:
                return answer
            asyncio.get_running_loop().call_soon(self._take_turn)
        self._sliced.append(slices)
        return slices.withdraw

    def _take_turn(self) -> None:
        """Run one slice of the request that has waited longest; it goes to the end of the queue if that was not all."""
        slices = self._sliced.popleft()
        answer = None if slices.withdrawn else slices.run()
        if answer is None and not slices.withdrawn:
            self._sliced.append(slices)
        if self._sliced:
            asyncio.get_running_loop().call_soon(self._take_turn)
        if answer is not None:
            slices.deliver(answer)


class _Slices:
    """One request of many instances, on the event loop for `SLICE_SECONDS` a turn."""

    def __init__(self, compute: Compute, largest: int, call: Call, deliver: Deliver) -> None:
        self.deliver = deliver
        self.withdrawn = False
        self._compute = compute
        self._largest = largest
        self._call = call
        self._parts: list[Outputs] = []
        self._next = 0
        self._started = 0.0

    def withdraw(self) -> None:
        """Compute nothing more: nobody waits for it."""
        self.withdrawn = True

    def run(self) -> Answer | None:
        """Compute until the slice is used up; give the answer once all is computed, or has failed."""
        call, now = self._call, time.perf_counter()
        self._started = self._started or now
        instances = call.work.instances
        try:
            refuse_late(call.deadline)
            while self._next < len(instances):
                outputs = self._compute(instances[self._next : self._next + self._largest])
                self._parts.append(tuple(output.copy() for output in outputs))
                self._next += self._largest
                if time.perf_counter() > now + SLICE_SECONDS and self._next < len(instances):
                    return None
            joined = tuple(np.concatenate(parts) for parts in zip(*self._parts, strict=True))
            return _write(call, joined, self._started, time.perf_counter())
        except FoldserveError as err:
            return call.contract.refuse(err)
        except Exception as err:  # noqa: BLE001 - whatever it is, a client waits for an answer
            return answer_bug(err)


def refuse_late(deadline: float) -> None:
    """Refuse a request that nobody waits for any more.

    Raises:
        DeadlineExceeded: the deadline, by `time.perf_counter`, is over.
    """
    if deadline < NO_DEADLINE and time.perf_counter() > deadline:
        raise too_late()


def too_late() -> DeadlineExceeded:
    """Say that the time that the client gave is over."""
    return DeadlineExceeded("the time that the request gave was over before the model had answered")


def _answer_tick(compute: Compute, outputs_at: Sequence[Outputs], calls: Sequence[Call]) -> list[Answer]:
    largest = len(outputs_at)
    if len(calls) <= largest:
        return _answer_few(compute, outputs_at, calls)
    parts = (calls[start : start + largest] for start in range(0, len(calls), largest))
    return [answer for part in parts for answer in _answer_few(compute, outputs_at, part)]


def _answer_few(compute: Compute, outputs_at: Sequence[Outputs], calls: Sequence[Call]) -> list[Answer]:
    """Answer what fits one run. If that fails, each is asked alone: an instance has nothing to do with the rest."""
    started = time.perf_counter()
    try:
        outputs = compute([call.work.instances[0] for call in calls])
    except FoldserveError as err:
        if len(calls) > 1:
            return [_answer_few(compute, outputs_at, (call,))[0] for call in calls]
        return [calls[0].contract.refuse(err)]
    except Exception as err:  # noqa: BLE001 - whatever it is, clients wait for their answers
        return [answer_bug(err)] * len(calls)
    computed = time.perf_counter()
    if len(calls) > 1:
        together = _try_together(calls, outputs, started, computed)
        if together is not None:
            return together
    return [_write(call, one, started, computed) for call, one in zip(calls, outputs_at, strict=False)]


def _try_together(calls: Sequence[Call], outputs: Outputs, started: float, computed: float) -> list[Answer] | None:
    """Write the answers of requests that are alike in one go; None if they are not, or if one of them has no answer."""
    together = calls[0].work.write_together
    if together is None or any(call.work.write_together is not together for call in calls):
        return None
    try:
        bodies = together(outputs)
    except FoldserveError:
        return None
    written = time.perf_counter()
    pairs = zip(calls, bodies, strict=True)
    return [Answer(200, body, times=Times(call.read_at, started, computed, written)) for call, body in pairs]


def _answer_alone(compute: Compute, call: Call) -> Answer:
    started = time.perf_counter()
    try:
        outputs = compute(call.work.instances)
    except FoldserveError as err:
        return call.contract.refuse(err)
    except Exception as err:  # noqa: BLE001 - whatever it is, a client waits for an answer
        return answer_bug(err)
    return _write(call, outputs, started, time.perf_counter())


def _write(call: Call, outputs: Outputs, started: float, computed: float) -> Answer:
    try:
        answer = call.work.write(outputs)
    except FoldserveError as err:
        answer = call.contract.refuse(err)
    except Exception as err:  # noqa: BLE001 - one bug must not take the answers of the others with it
        answer = answer_bug(err)
    return answer.at(Times(call.read_at, started, computed, time.perf_counter()))


def _compute_counted(
    compute: Compute, count: Callable[[int], None], on_lost: Callable[[DeviceLost], None], instances: Sequence[bytes]
) -> Outputs:
    """Compute what fits one run, and count how many ran together; tell if the device is lost."""
    count(len(instances))
    try:
        return compute(instances)
    except DeviceLost as err:
        on_lost(err)
        raise


def _compute_all(compute: Compute, largest: int, instances: Sequence[bytes]) -> Outputs:
    """Compute any number of instances; what is more than one run is copied out of the buffers."""
    if len(instances) <= largest:
        return compute(instances)
    starts = range(0, len(instances), largest)
    parts = [tuple(output.copy() for output in compute(instances[at : at + largest])) for at in starts]
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


def nothing_to_withdraw() -> None:
    """Do nothing: what was gathered runs at the end of the tick, for nobody if need be."""
