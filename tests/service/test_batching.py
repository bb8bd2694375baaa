"""Batches: allowed where every row is bitwise the answer alone, and then no instance ever feels its neighbours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from service.app import App, create_app
from service.batches import Batches
from service.batching import SIZES, Batching, plan_batching, plausible_instances
from service.errors import PredictionFailed
from service.protocols.answer import Answer
from service.protocols.contract import Question
from service.protocols.predict import Endpoint
from service.protocols.runner import Call, Runner
from service.repository import Opening, ServedModel, find_places, open_place
from service.session import open_session
from service.settings import Settings
from tests.service.tiny_models import Array, TinyModel, tiny_model, to_model, write_tiny_bundle

PLAYERS = Path(__file__).parent.parent / "golden" / "players" / "1"
OVERFLOWS = b'{"instance":[3e38,3e38,3e38,3e38]}'
Ask = Callable[[bytes], Coroutine[Any, Any, tuple[int, bytes]]]


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may find that a batch does not pay: not what is tested here."""
    monkeypatch.setattr("service.batching._pays", lambda *_: True)


@pytest.fixture
def app(tmp_path: Path) -> App:
    write_tiny_bundle(tmp_path, tiny_model())
    return create_app(Settings(models=tmp_path, device="cpu"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """A model that may run up to 16 instances together."""
    root = tmp_path_factory.mktemp("endpoint")
    write_tiny_bundle(root, tiny_model())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.batching._pays", lambda *_: True)
        model = open_place(find_places(root).places["digits"][0], Opening(device="cpu"), root)
    assert (model.batching.sizes, model.batching.certificate.overall) == ((1, *SIZES), "bitwise")
    return model


@pytest.fixture(scope="module")
def endpoint(served: ServedModel) -> Endpoint:
    return Endpoint(served)


def run_with(model: ServedModel) -> Runner:
    return Runner(model, None, max_waiting=100, count=lambda _: None, on_lost=lambda _: None)


def answer_each(runner: Runner, endpoint: Endpoint, asked: list[bytes]) -> list[Answer]:
    return [timeless(runner.answer(endpoint, Question(body))) for body in asked]


def answer_together(runner: Runner, endpoint: Endpoint, asked: list[bytes]) -> list[Answer]:
    calls = [Call(endpoint.read(Question(body)), endpoint, 0.0) for body in asked]
    return list(map(timeless, runner.answer_all(calls)))


def timeless(answer: Answer) -> Answer:
    return answer._replace(times=None)


@asynccontextmanager
async def running(app: App) -> AsyncIterator[Ask]:
    """Start the app, and give a function that posts a body to it, as ASGI does."""

    async def ask(body: bytes) -> tuple[int, bytes]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(
            {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b""}, receive, send
        )
        return sent[0]["status"], sent[1]["body"]

    async with app.running():
        yield ask


def body_of(instance: Array) -> bytes:
    return json.dumps({"instance": instance.tolist()}).encode()


def bodies(count: int) -> list[bytes]:
    return [body_of(instance) for instance in np.random.default_rng(2).normal(size=(count, 4)).astype(np.float32)]


def test_ten_thousand_requests_in_any_company_get_one_answer_per_instance(app: App) -> None:
    async def main() -> tuple[dict[bytes, set[tuple[int, bytes]]], dict[bytes, tuple[int, bytes]]]:
        rng, asked = np.random.default_rng(3), bodies(6)
        answers: dict[bytes, set[tuple[int, bytes]]] = {body: set() for body in asked}
        async with running(app) as ask:
            alone = {body: await ask(body) for body in asked}
            done = 0
            while done < 10_000:
                crowd = [asked[index] for index in rng.integers(len(asked), size=rng.integers(1, 40))]
                for body, answer in zip(crowd, await asyncio.gather(*map(ask, crowd)), strict=True):
                    answers[body].add(answer)
                done += len(crowd)
        return answers, alone

    answers, alone = asyncio.run(main())
    assert answers == {body: {answer} for body, answer in alone.items()}
    assert {status for status, _ in alone.values()} == {200}


def test_what_arrives_in_one_tick_is_run_together(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    compute = Batches.compute

    def watch(self: Batches, packed: list[bytes]) -> tuple[Array, ...]:
        sizes.append(len(packed))
        return compute(self, packed)

    monkeypatch.setattr(Batches, "compute", watch)

    async def main() -> None:
        async with running(app) as ask:
            sizes.clear()
            await asyncio.gather(*map(ask, bodies(21)))
            await ask(bodies(1)[0])

    asyncio.run(main())
    assert sizes == [1, 16, 4, 1]  # the first is answered before there is a crowd


@pytest.mark.parametrize(
    ("bad", "status"),
    [(b"{", 400), (b'{"instance":[1,2,3]}', 422), (b'{"instance":[1,2,3,1e39]}', 422), (OVERFLOWS, 422)],
)
def test_a_bad_request_in_a_tick_is_refused_alone(app: App, bad: bytes, status: int) -> None:
    async def main() -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
        crowd = bodies(9)
        crowd.insert(4, bad)
        async with running(app) as ask:
            return [await ask(body) for body in crowd], list(await asyncio.gather(*map(ask, crowd)))

    alone, together = asyncio.run(main())
    assert together == alone
    assert [answer[0] for answer in together] == [200] * 4 + [status] + [200] * 5


def test_who_leaves_within_a_tick_takes_nobody_along(app: App) -> None:
    async def main() -> tuple[list[tuple[int, bytes]], list[Any]]:
        crowd = bodies(8)
        async with running(app) as ask:
            alone = [await ask(body) for body in crowd]
            tasks = [asyncio.ensure_future(ask(body)) for body in crowd]
            await asyncio.sleep(0)  # now all are gathered
            tasks[0].cancel()
            tasks[5].cancel()
            return alone, await asyncio.gather(*tasks, return_exceptions=True)

    alone, together = asyncio.run(main())
    assert [isinstance(answer, asyncio.CancelledError) for answer in together] == [n in {0, 5} for n in range(8)]
    assert [answer for n, answer in enumerate(together) if n not in {0, 5}] == [
        answer for n, answer in enumerate(alone) if n not in {0, 5}
    ]


def test_if_a_batch_fails_each_is_asked_alone(
    served: ServedModel, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = b'{"instance":[6,6,6,6]}'
    packed = endpoint.read(Question(poison)).instances[0]
    compute = Batches.compute

    def fail(self: Batches, instances: list[bytes]) -> tuple[Array, ...]:
        if packed in instances:
            raise PredictionFailed("no")
        return compute(self, instances)

    asked = bodies(5)
    expected = answer_each(run_with(served), endpoint, asked)
    monkeypatch.setattr(Batches, "compute", fail)
    answers = answer_together(run_with(served), endpoint, [*asked[:2], poison, *asked[2:]])
    assert answers[:2] + answers[3:] == expected
    assert (answers[2].status, answers[2].reason) == (500, "prediction_failed")


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-5, 5)
instances = st.lists(numbers | st.sampled_from([None, True, 1e39, 1e300]), min_size=3, max_size=5)
some_bodies = st.binary(max_size=9) | st.lists(numbers, min_size=4, max_size=4).map(
    lambda values: json.dumps({"instance": values}).encode()
)
any_bodies = some_bodies | instances.map(lambda values: json.dumps({"instance": values}).encode())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(crowd=st.lists(any_bodies, min_size=1, max_size=40))
def test_any_bodies_are_answered_together_as_each_alone(endpoint: Endpoint, crowd: list[bytes]) -> None:
    runner = run_with(endpoint.model)
    alone = answer_each(runner, endpoint, crowd)
    refused = dict(enumerate(alone))
    good = {place: body for place, body in enumerate(crowd) if endpoint.try_read(Question(body)) is not None}
    together = refused | dict(zip(good, answer_together(runner, endpoint, list(good.values())), strict=True))
    assert [together[place] for place in range(len(crowd))] == alone


def test_a_model_whose_rows_depend_on_the_size_is_served_unbatched_and_says_so() -> None:
    """The golden bundle, where ONNX Runtime adds up in another order for two instances than for one."""
    model = open_place(find_places(PLAYERS).places["players"][0], Opening(device="cpu"), PLAYERS)
    if model.batching.certificate.overall == "bitwise":
        pytest.skip("on this CPU its rows are bitwise the same")
    assert model.batching.sizes == (1,)
    assert model.batching.reason == "a batch of 2: rows are not bitwise the answers alone"
    assert model.batches.largest == 1


def save(path: Path, nodes: list[Any], weights: list[Any], batch: Any = "n") -> Path:
    """Save a model from x [batch, 2] to y [batch, 2]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 2]) for name in "xy")
    onnx.save(to_model(nodes, [x], [y], weights), path)
    return path


def plan(path: Path) -> Batching:
    return plan_batching(open_session(path, device="cpu"), (), 1e-5)


def test_a_model_that_mixes_its_batch_is_found_out(tmp_path: Path) -> None:
    mix = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    found = plan(save(tmp_path / "mix.onnx", mix, [axes]))
    assert found.sizes == (1,)
    assert found.reason.startswith("a batch of 2: rows are ")


@pytest.mark.parametrize("operator", ["ReduceMin", "ReduceMax"])
def test_a_model_that_feels_only_extreme_neighbours_is_found_out(tmp_path: Path, operator: str) -> None:
    """What is beyond ±1000 anywhere in the batch is added to every row."""
    nodes = [
        helper.make_node(operator, ["x"], ["extreme"], keepdims=0),
        helper.make_node("Clip", ["extreme", "low", "high"], ["usual"]),
        helper.make_node("Sub", ["extreme", "usual"], ["beyond"]),
        helper.make_node("Add", ["x", "beyond"], ["y"]),
    ]
    bounds = [
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("low", -1000), ("high", 1000))
    ]
    found = plan(save(tmp_path / "extreme.onnx", nodes, bounds))
    assert found.sizes == (1,)


def test_a_fixed_batch_axis_is_not_batched(tmp_path: Path) -> None:
    found = plan(save(tmp_path / "fixed.onnx", [helper.make_node("Identity", ["x"], ["y"])], [], batch=1))
    assert found == Batching(reason="the model's batch axis is fixed")


def test_a_model_that_only_runs_for_one_is_not_batched(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1, 2], np.int64), "shape")
    path = save(tmp_path / "one.onnx", [helper.make_node("Reshape", ["x", "shape"], ["y"])], [shape])
    session = open_session(path, device="cpu")
    session.has_free_batch = True  # as it seems in a model where ONNX Runtime can not infer it
    found = plan_batching(session, (), 1e-5)
    assert found.sizes == (1,)
    assert found.reason.startswith("a batch of 2: it does not run: ")


def test_a_batch_that_does_not_pay_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.batching._pays", lambda *_: False)
    found = plan(tiny_model().save(tmp_path / "m.onnx"))
    assert (found.sizes, found.certificate.overall) == ((1,), "off")
    assert found.reason == "a batch of 2: it takes as long as its instances one by one"


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_instances_are_drawn_in_the_input_s_shape_and_dtype(digits: TinyModel, dtype: str) -> None:
    spec = tiny_model((1, 2, 3), dtype=dtype).signature.input
    drawn = plausible_instances(spec, (), 64)
    assert drawn.shape == (64, 1, 2, 3)
    assert drawn.dtype == dtype
    assert np.array_equal(drawn, plausible_instances(spec, (), 64))


def test_the_model_shows_how_it_is_batched(app: App) -> None:
    from service.protocols.descriptions import describe_model

    async def main() -> Any:
        async with running(app):
            return describe_model(app.directory.find_default())["batching"]

    batching = asyncio.run(main())
    assert batching.sizes == (1, *SIZES)
    assert batching.num_compared >= 5 * 64
