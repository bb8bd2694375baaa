"""Fault 20: versions come and go while requests are under way. None is lost, each answer is of the version it names."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.faults.standing import MEBIBYTE, Standing, check_alive_and_right, memory_bytes, own_body, scores_of, standing
from tests.faults.test_bundles import wait_for_state
from tests.service.exact_models import exact_instances, exact_model, expected_bits, write_exact_bundle
from tests.service.tiny_models import TinyModel

NUM_RELOADS = 20  # a hundred are `python -m benchmarks.soak`'s
NUM_CLIENTS = 4
READY_SECONDS = 10.0
# Of two loaded versions, one that is on its way, and ONNX Runtime's arenas.
RELOADED_BOUND_BYTES = 48 * MEBIBYTE


class Answers:
    """What clients got while versions came and went."""

    def __init__(self) -> None:
        self.stopped = False
        self.by_version: Counter[str] = Counter()
        self.wrong: list[str] = []

    def ask_on(self, url: str, models: dict[str, TinyModel]) -> None:
        """Ask until it is enough, over one connection, and compare each answer with the version that it names."""
        instance = exact_instances(exact_model(), 1)[0]
        bits = {version: expected_bits(model, instance[None]) for version, model in models.items()}
        with httpx.Client(base_url=url, timeout=30) as client:
            while not self.stopped:
                response = client.post("/models/digits/predict", content=own_body(instance))
                document = response.json()
                if response.status_code != 200:
                    self.wrong.append(f"{response.status_code} {response.text[:200]}")
                    continue
                version = document["model"]["version"]
                self.by_version[version] += 1
                if scores_of(document) != bits[version]:
                    self.wrong.append(f"version {version} answered as another one")


@contextmanager
def under_load(stand: Standing, models: dict[str, TinyModel]) -> Iterator[Answers]:
    """Ask all the while from several clients; in the end no answer was wrong."""
    answers = Answers()
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        clients = [pool.submit(answers.ask_on, stand.url, models) for _ in range(NUM_CLIENTS)]
        try:
            yield answers
        finally:
            answers.stopped = True
        for client in clients:
            client.result()
    if answers.wrong:
        raise AssertionError(f"{len(answers.wrong)} answers were wrong, the first: {answers.wrong[0]}")


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Standing]:
    with standing(tmp_path, "--watch-seconds", "0.05", "--versions", "2") as running:
        yield running


def test_fault_20_reloads_under_load_lose_nothing_and_mix_nothing(watching: Standing) -> None:
    models = {str(version): exact_model(seed=version - 1) for version in range(1, NUM_RELOADS + 2)}
    with under_load(watching, models) as answers:
        for version in list(models)[1:]:
            write_exact_bundle(watching.root, models[version], version=version)
            wait_for_state(watching, version, "READY")
            wait_for_answers_of(answers, version)
    assert len(answers.by_version) == NUM_RELOADS + 1
    check_alive_and_right(replace(watching, model=models[str(NUM_RELOADS + 1)]), bound_bytes=RELOADED_BOUND_BYTES)


def wait_for_answers_of(answers: Answers, version: str) -> None:
    until = time.perf_counter() + READY_SECONDS
    while not answers.by_version[version]:
        if time.perf_counter() > until:
            raise AssertionError(f"version {version} is ready and answers nothing")
        time.sleep(0.01)


def test_fault_20_memory_does_not_grow_with_the_number_of_reloads(watching: Standing) -> None:
    sizes = []
    for version in range(2, 2 + NUM_RELOADS):
        write_exact_bundle(watching.root, exact_model(seed=version), version=str(version))
        wait_for_state(watching, str(version), "READY")
        sizes.append(memory_bytes(watching.pid))
    assert max(sizes[NUM_RELOADS // 2 :]) - max(sizes[: NUM_RELOADS // 2]) < 8 * MEBIBYTE


def test_fault_20_several_reloads_at_once_end_in_the_newest(watching: Standing) -> None:
    models = {str(version): exact_model(seed=version - 1) for version in range(1, 8)}
    with under_load(watching, models), ThreadPoolExecutor(8) as pool:
        written = [
            pool.submit(write_exact_bundle, _aside(watching.root, version), models[version], version=version)
            for version in list(models)[1:]
        ]
        for bundle in written:
            shutil.move(bundle.result().directory, watching.root / "digits")
        asked = [pool.submit(httpx.post, f"{watching.url}/v2/repository/models/digits/load") for _ in range(8)]
        assert {answer.result().status_code for answer in asked} == {200}
        wait_for_state(watching, "7", "READY")
    check_alive_and_right(replace(watching, model=models["7"]))


def _aside(root: Path, version: str) -> Path:
    place = root.parent / f"aside-{root.name}-{version}"
    place.mkdir()
    return place


def test_fault_20_a_reload_that_fails_loses_nothing(watching: Standing) -> None:
    with under_load(watching, {"1": watching.model}):
        for version in ("2", "3", "4"):
            bundle = write_exact_bundle(_aside(watching.root, version), exact_model(seed=9), version=version)
            bundle.model_path.write_bytes(b"broken")
            shutil.move(bundle.directory, watching.root / "digits")
            wait_for_state(watching, version, "UNAVAILABLE")
    check_alive_and_right(watching)


def test_fault_20_a_version_that_is_taken_away_gives_way_to_the_one_before(watching: Standing) -> None:
    models = {"1": watching.model, "2": exact_model(seed=2)}
    with under_load(watching, models) as answers:
        for _ in range(3):
            write_exact_bundle(watching.root, models["2"], version="2")
            wait_for_state(watching, "2", "READY")
            shutil.rmtree(watching.root / "digits" / "2")
            wait_until_gone(watching, "2")
    assert set(answers.by_version) == {"1", "2"}
    check_alive_and_right(watching)


def wait_until_gone(stand: Standing, version: str) -> None:
    until = time.perf_counter() + READY_SECONDS
    while any(entry["version"] == version for entry in httpx.post(f"{stand.url}/v2/repository/index").json()):
        if time.perf_counter() > until:
            raise AssertionError(f"version {version} is gone and still listed")
        time.sleep(0.02)
