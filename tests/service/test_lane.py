"""The way of a request: deadlines, compressed bodies, many instances, queues; and who leaves is not computed for."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.app import App, create_app
from service.batches import Batches
from service.protocols import runner
from service.protocols.answer import Answer
from service.protocols.contract import Headers, Question
from service.protocols.directory import Served
from service.protocols.paths import OPEN_INFERENCE, OWN, TENSORFLOW
from service.settings import Settings
from tests.service.tiny_models import TOLERANCE, tiny_model, write_tiny_bundle

BODY = b'{"instance":[1,2,3,4]}'
MODEL = tiny_model()


@asynccontextmanager
async def running(root: Path, **settings: Any) -> AsyncIterator[Served]:
    write_tiny_bundle(root, MODEL)
    app: App = create_app(Settings(models=root, device="cpu", watch_seconds=0, **settings))
    async with app.running():
        yield app.directory.find("digits")


@pytest.fixture
def long_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model counts as a long one, with a thread of its own."""
    monkeypatch.setattr("service.scheduler.MAX_INLINE_SECONDS", 0.0)


async def ask(served: Served, question: Question, protocol: str = OWN) -> Answer:
    delivered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    asked = served.lanes[protocol].ask(question, delivered.set_result)
    return asked if isinstance(asked, Answer) else await delivered


def code(answer: Answer) -> str:
    return str(json.loads(answer.body).get("code", ""))


def rows(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).normal(size=(count, 4)).astype(np.float32)


def watch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many instances each run of a model takes."""
    sizes: list[int] = []
    compute = Batches.compute

    def watch(self: Batches, packed: Sequence[bytes]) -> tuple[Any, ...]:
        sizes.append(len(packed))
        return compute(self, packed)

    monkeypatch.setattr(Batches, "compute", watch)
    return sizes


# --- deadlines -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_model")
def test_a_request_whose_time_is_over_while_it_waits_gets_504_and_is_not_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = watch_sizes(monkeypatch)

    async def main() -> tuple[Answer, float, int]:
        async with running(tmp_path) as served:
            assert served.runner.thread is not None
            blocker = served.runner.thread.submit(time.sleep, 1.0)
            computed.clear()
            begin = time.perf_counter()
            answer = await ask(served, Question(BODY, Headers(timeout=b"0.05")))
            seconds = time.perf_counter() - begin
            await blocker
            await served.runner.thread.submit(time.sleep, 0)
            return answer, seconds, len(computed)

    answer, seconds, num_computed = asyncio.run(main())
    assert (answer.status, code(answer)) == (504, "deadline_exceeded")
    assert seconds < 0.9  # it did not wait for who was in front
    assert num_computed == 0


@pytest.mark.parametrize("protocol", [OPEN_INFERENCE, OWN])
def test_a_deadline_that_is_over_before_the_model_runs_is_504(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """On the event loop nobody waits, so reading is made to take longer than the time that is given."""
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    of_protocol = json.dumps({"parameters": {"timeout": 1000}, "inputs": [tensor]}).encode()
    question = Question(of_protocol) if protocol == OPEN_INFERENCE else Question(BODY, Headers(timeout=b"0.001"))

    async def main() -> tuple[Answer, Answer]:
        async with running(tmp_path) as served:
            contract = served.lanes[protocol].contract
            in_time = await ask(served, question)
            read = contract.try_read

            def read_slowly(asked: Question) -> Any:
                time.sleep(0.01)
                return read(asked)

            monkeypatch.setattr(contract, "try_read", read_slowly)
            return in_time, await ask(served, question, protocol)

    _, late = asyncio.run(main())
    assert (late.status, code(late)) == (504, "deadline_exceeded")


@pytest.mark.parametrize("timeout", [b"0", b"-1", b"soon", b"nan", b"1_0", b"\xff"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, timeout: bytes) -> None:
    async def main() -> Answer:
        async with running(tmp_path) as served:
            return await ask(served, Question(BODY, Headers(timeout=timeout)))

    answer = asyncio.run(main())
    assert answer.status == 400
    assert json.loads(answer.body)["field"] == "x-request-timeout"


@pytest.mark.parametrize("timeout", [b"10", b"1e308", b"inf"])
@pytest.mark.parametrize("is_long", [False, True])
def test_time_enough_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout: bytes, *, is_long: bool
) -> None:
    if is_long:
        monkeypatch.setattr("service.scheduler.MAX_INLINE_SECONDS", 0.0)

    async def main() -> tuple[Answer, Answer]:
        async with running(tmp_path) as served:
            return await ask(served, Question(BODY)), await ask(served, Question(BODY, Headers(timeout=timeout)))

    plain, timed = asyncio.run(main())
    assert plain.body == timed.body


# --- compressed bodies -----------------------------------------------------------------------------------------------


def test_a_compressed_body_is_answered_as_a_plain_one(tmp_path: Path) -> None:
    async def main() -> tuple[Answer, Answer, Answer]:
        async with running(tmp_path, max_body_bytes=1000) as served:
            packed = Question(gzip.compress(BODY), Headers(content_encoding=b"gzip"))
            bomb = Question(gzip.compress(bytes(5_000_000)), Headers(content_encoding=b"gzip"))
            return await ask(served, Question(BODY)), await ask(served, packed), await ask(served, bomb)

    plain, packed, bomb = asyncio.run(main())
    assert plain.body == packed.body
    assert bomb.status == 413


# --- many instances --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 33, 1000])
@pytest.mark.parametrize("is_long", [False, True])
def test_many_instances_in_one_request_are_answered_as_each_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, *, is_long: bool
) -> None:
    monkeypatch.setattr(runner, "SLICE_SECONDS", 0.0)  # a turn of the loop for each batch
    if is_long:
        monkeypatch.setattr("service.scheduler.MAX_INLINE_SECONDS", 0.0)
    instances = rows(count)

    async def main() -> tuple[Any, list[Any]]:
        async with running(tmp_path) as served:
            body = json.dumps({"instances": instances.tolist()}).encode()
            together = await ask(served, Question(body), TENSORFLOW)
            alone = [await ask(served, Question(json.dumps({"instance": row.tolist()}).encode())) for row in instances]
            return json.loads(together.body)["predictions"], [json.loads(one.body) for one in alone]

    together, alone = asyncio.run(main())
    assert together == [one["prediction"]["scores"] for one in alone]
    expected = [MODEL.oracle(row) for row in instances]
    np.testing.assert_allclose(together, expected, atol=TOLERANCE)


def test_while_many_instances_are_computed_others_get_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SLICE_SECONDS", 0.0)

    async def main() -> tuple[bool, int]:
        async with running(tmp_path) as served:
            body = json.dumps({"instances": rows(300).tolist()}).encode()
            many = asyncio.ensure_future(ask(served, Question(body), TENSORFLOW))
            await asyncio.sleep(0)
            single = await ask(served, Question(BODY))
            was_first = not many.done()
            await many
            return was_first, single.status

    assert asyncio.run(main()) == (True, 200)


def test_many_instances_are_computed_no_further_for_who_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SLICE_SECONDS", 0.0)
    sizes = watch_sizes(monkeypatch)

    async def main() -> int:
        async with running(tmp_path) as served:
            sizes.clear()
            body = json.dumps({"instances": rows(500).tolist()}).encode()
            withdraw = served.lanes[TENSORFLOW].ask(Question(body), lambda _: None)
            assert not isinstance(withdraw, Answer)
            withdraw()
            await asyncio.sleep(0.2)
            return served.runner.num_in_flight()

    assert asyncio.run(main()) == 0
    assert sum(sizes) < 500


def test_what_would_be_answered_with_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_ANSWER_NUMBERS", 30)  # of three a row

    async def main() -> list[Answer]:
        async with running(tmp_path) as served:
            bodies = [json.dumps({"instances": rows(count).tolist()}).encode() for count in (10, 11)]
            return [await ask(served, Question(body), TENSORFLOW) for body in bodies]

    fits, is_more = asyncio.run(main())
    assert (fits.status, is_more.status) == (200, 413)
    assert "at most 10 instances" in json.loads(is_more.body)["error"]


def test_requests_of_many_instances_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SLICE_SECONDS", 0.0)

    async def main() -> list[int]:
        done: list[int] = []

        async def ask_many(served: Served, number: int, count: int) -> None:
            await ask(served, Question(json.dumps({"instances": rows(count).tolist()}).encode()), TENSORFLOW)
            done.append(number)

        async with running(tmp_path) as served:
            await asyncio.gather(*(ask_many(served, number, count) for number, count in enumerate((400, 64, 64))))
            assert served.runner.num_in_flight() == 0
        return done

    assert asyncio.run(main())[-1] == 0  # the long one, though it came first


# --- queues ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_model")
def test_beyond_the_queue_there_is_429_at_once_and_when_to_come_back(tmp_path: Path) -> None:
    async def main() -> list[Answer]:
        async with running(tmp_path, max_queue=4) as served:
            assert served.runner.thread is not None
            served.runner.thread.submit(time.sleep, 0.3)
            return await asyncio.gather(*(ask(served, Question(BODY)) for _ in range(10)))

    answers = asyncio.run(main())
    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 7
    refused = next(answer for answer in answers if answer.status == 429)
    assert dict(refused.headers)[b"retry-after"] == b"1"


def test_a_crowd_in_one_tick_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.batching._pays", lambda *_: True)

    async def main() -> list[Answer]:
        async with running(tmp_path, max_queue=5) as served:
            return await asyncio.gather(*(ask(served, Question(BODY)) for _ in range(20)))

    statuses = [answer.status for answer in asyncio.run(main())]
    assert (statuses.count(200), statuses.count(429)) == (6, 14)  # the first was answered where it arrived


# --- times -----------------------------------------------------------------------------------------------------------


def test_the_stages_follow_one_another(tmp_path: Path) -> None:
    async def main() -> tuple[float, Answer, float]:
        async with running(tmp_path) as served:
            begin = time.perf_counter()
            answer = await ask(served, Question(BODY))
            return begin, answer, time.perf_counter()

    begin, answer, end = asyncio.run(main())
    assert answer.times is not None
    assert [begin, *answer.times, end] == sorted([begin, *answer.times, end])
