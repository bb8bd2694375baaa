"""Faults 11, 14 and 15 with a model that takes long: too many ask it, clients give up, time runs out."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.faults.slow_model import slow_model
from tests.faults.standing import HEALTH_SECONDS, Standing, check_alive_and_right, own_body, scores_of, standing
from tests.faults.wire import connected, request
from tests.service.exact_models import exact_instances, expected_bits

MODEL = slow_model(4000)  # some tenths of a second
MAX_QUEUE = 4
NUM_CLIENTS = 60
INFER = "/v2/models/digits/infer"


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A server of a model that takes long, before which few may wait."""
    root: Path = tmp_path_factory.mktemp("models")
    with standing(root, "--max-queue", str(MAX_QUEUE), "--max-connections", "1000", model=MODEL) as running:
        yield running


async def ask_all(stand: Standing, instances: Any, **headers: str) -> list[tuple[httpx.Response, float]]:
    """Ask for all instances at once; give each answer and its seconds."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=stand.url, timeout=60, limits=limits) as client:

        async def ask(instance: Any) -> tuple[httpx.Response, float]:
            started = time.perf_counter()
            response = await client.post("/predict", content=own_body(instance), headers=headers)
            return response, time.perf_counter() - started

        return list(await asyncio.gather(*map(ask, instances)))


async def with_health(stand: Standing, answers: Awaitable[Any]) -> tuple[Any, list[float]]:
    """Ask for health all the while; give also how long it took each time."""
    task, seconds = asyncio.ensure_future(answers), []
    async with httpx.AsyncClient(base_url=stand.url, timeout=30) as client:
        while not task.done():
            started = time.perf_counter()
            assert (await client.get("/health/ready")).status_code == 200
            seconds.append(time.perf_counter() - started)
            await asyncio.sleep(0.01)
    return await task, seconds


def num_infers(stand: Standing) -> int:
    """How many instances the model has computed, as the metrics count."""
    text = httpx.get(f"{stand.url}/metrics").text
    return int(sum(map(float, re.findall(r"^foldserve_batch_size_sum\{[^}]*\} (\S+)$", text, re.MULTILINE))))


# --- 14: too many ----------------------------------------------------------------------------------------------------


def test_fault_14_overload_is_refused_at_once_and_what_is_admitted_is_right(slow: Standing) -> None:
    instances = exact_instances(MODEL, NUM_CLIENTS)
    answers, health_seconds = asyncio.run(with_health(slow, ask_all(slow, instances)))
    statuses = Counter(response.status_code for response, _ in answers)
    assert set(statuses) == {200, 429}
    assert 1 <= statuses[200] <= MAX_QUEUE + 2
    for instance, (response, seconds) in zip(instances, answers, strict=True):
        if response.status_code == 200:
            assert scores_of(response.json()) == expected_bits(MODEL, instance[None])
        else:
            assert int(response.headers["retry-after"]) >= 1
            assert response.json()["code"] == "overloaded"
            assert seconds < HEALTH_SECONDS
    assert len(health_seconds) > 3
    assert max(health_seconds) < HEALTH_SECONDS
    check_alive_and_right(slow)


def test_fault_14_what_is_refused_is_counted(slow: Standing) -> None:
    asyncio.run(ask_all(slow, exact_instances(MODEL, NUM_CLIENTS)))
    text = httpx.get(f"{slow.url}/metrics").text
    [count] = re.findall(r'^foldserve_failures_total\{[^}]*reason="overloaded"[^}]*\} (\S+)$', text, re.MULTILINE)
    assert float(count) >= NUM_CLIENTS - MAX_QUEUE - 2


# --- 15: time runs out -----------------------------------------------------------------------------------------------


def test_fault_15_who_can_not_be_answered_in_time_is_told_so_and_nothing_is_computed(slow: Standing) -> None:
    async def ask_behind_others() -> tuple[Any, Any]:
        before = asyncio.ensure_future(ask_all(slow, exact_instances(MODEL, MAX_QUEUE - 1)))
        while await asyncio.to_thread(num_waiting, slow) < MAX_QUEUE - 1:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0)
        late = await ask_all(slow, exact_instances(MODEL, 1, seed=5), **{"x-request-timeout": "0.05"})
        return await before, late

    computed = num_infers(slow)
    before, [(late, seconds)] = asyncio.run(ask_behind_others())
    assert late.status_code == 504
    assert late.json()["code"] == "deadline_exceeded"
    assert seconds < HEALTH_SECONDS
    assert [response.status_code for response, _ in before] == [200] * (MAX_QUEUE - 1)
    assert num_infers(slow) - computed == MAX_QUEUE - 1
    check_alive_and_right(slow)


def test_fault_15_time_that_is_over_at_once_runs_nothing(slow: Standing) -> None:
    computed = num_infers(slow)
    [(response, _)] = asyncio.run(ask_all(slow, exact_instances(MODEL, 1), **{"x-request-timeout": "0.000001"}))
    assert response.status_code == 504
    assert num_infers(slow) == computed


def test_fault_15_tritons_own_parameter_means_the_same(slow: Standing) -> None:
    values = exact_instances(MODEL, 1)[0]
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(values)], "data": values.tolist()}
    hurried = {"inputs": [tensor], "parameters": {"timeout": 1}}
    assert httpx.post(slow.url + INFER, json=hurried, timeout=60).status_code == 504
    patient = {"inputs": [tensor], "parameters": {"timeout": 60_000_000}}
    answer = httpx.post(slow.url + INFER, json=patient, timeout=60)
    scores = np.array(answer.json()["outputs"][0]["data"], np.float32)
    assert scores.tobytes() == expected_bits(MODEL, values[None])


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "1s", ""])
def test_fault_15_a_time_that_is_none_is_the_clients_mistake(slow: Standing, value: str) -> None:
    [(response, _)] = asyncio.run(ask_all(slow, exact_instances(MODEL, 1), **{"x-request-timeout": value}))
    assert response.status_code == (200 if value == "" else 400)
    if value:
        assert "x-request-timeout" in response.json()["error"].lower()


# --- 11: clients give up ---------------------------------------------------------------------------------------------


def test_fault_11_what_nobody_waits_for_any_more_is_not_computed(slow: Standing) -> None:
    body = own_body(exact_instances(MODEL, 1)[0])
    computed = num_infers(slow)
    for _ in range(3):
        with connected(slow.url) as connection:
            connection.sendall(request("/predict", body))
            time.sleep(0.02)
    until = time.perf_counter() + 10
    while num_waiting(slow):
        assert time.perf_counter() < until
        time.sleep(0.05)
    assert num_infers(slow) - computed <= 2  # the one that had begun, and one that begins as its client leaves
    check_alive_and_right(slow)


def num_waiting(stand: Standing) -> float:
    """What the metrics say of requests under way."""
    text = httpx.get(f"{stand.url}/metrics").text
    return sum(map(float, re.findall(r"^foldserve_in_flight\{[^}]*\} (\S+)$", text, re.MULTILINE)))
