"""The way of a request for one model, whoever carries it: asked with a body, answered once, at once or a little later.

ASGI (`hot_path.py`) and the connection below it (`service/connection.py`) both ask here, so that there is one way to
an answer, and no second one that could answer otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.errors import BodyTooLarge, FoldserveError
from service.metrics import Recorder
from service.protocols.answer import Answer
from service.protocols.http_errors import answer_error, answer_status
from service.protocols.predict import Endpoint
from service.scheduler import OwnThread, Tick

Deliver = Callable[[Answer], None]
# Takes a request back that has not been answered yet: nobody waits for it any more.
Withdraw = Callable[[], object]

EXPLAINED_INLINE_BYTES = 16 * 1024  # some milliseconds

BUG = "the server failed on this request; its log says why"

logger = logging.getLogger(__name__)


class Question(NamedTuple):
    """What was posted, and what its headers say of it."""

    body: bytes
    content_type: bytes
    content_encoding: bytes


@dataclass(frozen=True, kw_only=True)
class Lane:
    """What a request for one model needs: who answers, where it runs, who counts, how long a body may be.

    A long model has a `thread`, a short one that may be run in batches a `tick`, and any other neither. `explainer` is
    where it is said what is wrong with long bodies, whatever the model. `example_answer` is what the model answered to
    its own example at start.
    """

    endpoint: Endpoint
    thread: OwnThread | None
    tick: Tick[bytes, Answer] | None
    explainer: OwnThread
    metrics: Recorder
    max_body_bytes: int
    example_answer: Answer

    def ask(self, question: Question, deliver: Deliver) -> Answer | Withdraw:
        """Answer at once, or give back how to withdraw the request; then `deliver` is called, once, with the answer.

        It is called in the event loop, after this function has returned. Never raises: a bug is an answer too.
        """
        try:
            if self.thread is not None:
                return _answer_later(self.thread, lambda: self.endpoint.answer(*question), deliver)
            packed = self.endpoint.try_read(*question)
            if packed is None:
                return self._explain(question.body, deliver)
            if self.tick is None:
                return self.endpoint.answer_all((packed,))[0]
            return self.tick.add(packed, deliver) or _nothing_to_withdraw
        except FoldserveError as err:
            return answer_error(err)
        except Exception as err:  # noqa: BLE001 - whatever it is, a client waits for an answer
            return answer_bug(err)

    def count(self, answer: Answer, arrived: float) -> None:
        """Count a request that arrived whole at `arrived`, by `time.perf_counter`, and is answered now."""
        self.metrics.record(answer.status, answer.reason, time.perf_counter() - arrived)

    def _explain(self, body: bytes, deliver: Deliver) -> Answer | Withdraw:
        """Say what is wrong with a body; of a long one in a thread, as that takes 100 times as long as reading it."""
        if len(body) <= EXPLAINED_INLINE_BYTES:
            return answer_error(self.endpoint.explain(body))
        return _answer_later(self.explainer, lambda: answer_error(self.endpoint.explain(body)), deliver)


def gather(endpoint: Endpoint) -> Tick[bytes, Answer]:
    """Gather what arrives for a model in one tick of the event loop, and answer it together."""

    def run(packed: Sequence[bytes]) -> list[Answer]:
        try:
            return endpoint.answer_all(packed)
        except Exception as err:  # noqa: BLE001 - whatever it is, clients wait for their answers
            return [answer_bug(err)] * len(packed)

    return Tick(run)


def too_large(got: str, max_body_bytes: int) -> BodyTooLarge:
    """Say that a body is larger than allowed."""
    expected = f"at most {max_body_bytes} bytes"
    return BodyTooLarge(f"the body is too large: expected {expected}, got {got}", expected=expected, got=got)


def answer_bug(err: Exception) -> Answer:
    """Log an exception that no room foresaw, and answer without a word about it."""
    logger.error("a bug in foldserve: this request could not be answered", exc_info=err)
    return answer_status(500, BUG)


def _answer_later(thread: OwnThread, answer: Callable[[], Answer], deliver: Deliver) -> Withdraw:
    call = thread.submit(answer)
    call.add_done_callback(lambda done: _deliver_call(done, deliver))
    return call.cancel


def _deliver_call(call: asyncio.Future[Answer], deliver: Deliver) -> None:
    if call.cancelled():
        return
    try:
        answer = call.result()
    except Exception as err:  # noqa: BLE001 - whatever it is, a client waits for an answer
        answer = answer_bug(err)
    deliver(answer)


def _nothing_to_withdraw() -> None:
    """What was gathered runs at the end of the tick, for nobody if need be."""
