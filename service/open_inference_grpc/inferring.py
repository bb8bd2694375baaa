"""ModelInfer: finds the lane of the model that a message names, and asks it as HTTP does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from service.open_inference_grpc.messages import message_type, parse
from service.protocols.answer import Answer
from service.protocols.contract import Headers, Question
from service.protocols.runner import Deliver, Withdraw


class Lane(Protocol):
    """As much of `service.protocols.lane.Lane` as is asked here."""

    def ask(self, question: Question, deliver: Deliver, arrived: float | None = None) -> Answer | Withdraw:
        """Answer at once, or give back how to withdraw the request."""

    def count(self, answer: Answer, arrived: float, headers: Headers, request_id: bytes) -> None:
        """Count a request that is answered now."""


# By a model's name, and its version, or None for the one that answers for it; raises ModelUnknown.
Find = Callable[[str, str | None], Lane]


class Inference:
    """Answers ModelInfer. To be used in one event loop."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._address = message_type("foldserve.Address")

    async def answer(self, body: bytes, headers: Headers) -> Answer:
        """Answer the bytes of a ModelInferRequest.

        Raises:
            FoldserveError: they name no model that is served here.
        """
        arrived = time.perf_counter()
        address = parse(self._address, body)
        lane = self._find(address.model_name, address.model_version or None)
        answer = await ask_lane(lane, Question(body, headers), arrived)
        lane.count(answer, arrived, headers, headers.request_id)
        return answer


async def ask_lane(lane: Lane, question: Question, arrived: float) -> Answer:
    """Wait for a lane's answer; if nobody waits any more, as the call was cancelled, withdraw the request."""
    delivered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    asked = lane.ask(question, lambda answer: _deliver(delivered, answer), arrived)
    if isinstance(asked, Answer):
        return asked
    try:
        return await delivered
    except asyncio.CancelledError:
        asked()
        raise


def _deliver(delivered: asyncio.Future[Answer], answer: Answer) -> None:
    if not delivered.done():
        delivered.set_result(answer)
