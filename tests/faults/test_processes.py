"""Fault 22: processes that are told to stop, told twice, or killed. What was asked before is answered."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.slow_model import slow_model
from tests.faults.standing import Standing, check_alive_and_right, complaints, scores_of, standing
from tests.faults.wire import connected, head, read_one, request
from tests.service.exact_models import expected_bits

NUM_CLIENTS = 8
END_SECONDS = 30
SLOW = slow_model(4000)


class Asking:
    """Clients that ask on and on until they are told that the server is not ready, as by a load balancer."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.stopped = threading.Event()

    def ask_on(self, stand: Standing) -> None:
        """Ask over one connection, and over a new one where the server closes it."""
        bits = expected_bits(stand.model, stand.instance[None])
        with httpx.Client(base_url=stand.url, timeout=30) as client:
            while not self.stopped.is_set():
                try:
                    response = client.post("/predict", content=stand.body())
                except httpx.HTTPError as err:
                    self.wrong.append(f"a request was lost: {err!r}")
                    return
                self.statuses[response.status_code] += 1
                if response.status_code != 200 or scores_of(response.json()) != bits:
                    self.wrong.append(f"wrong: {response.status_code} {response.text[:200]}")


def wait_until_red(url: str) -> None:
    """Wait until the server, or whatever worker of it is asked, is not ready; each is soon."""
    num_red = 0
    while num_red < 5:
        num_red = num_red + 1 if httpx.get(f"{url}/health/ready").status_code == 503 else 0
        time.sleep(0.01)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_fault_22_sigterm_under_load_loses_no_request(tmp_path: Path, workers: str) -> None:
    asking = Asking()
    with standing(tmp_path, "--drain-seconds", "2", "--workers", workers) as stand, ThreadPoolExecutor() as pool:
        clients = [pool.submit(asking.ask_on, stand) for _ in range(NUM_CLIENTS)]
        time.sleep(0.5)
        stand.server.process.terminate()
        wait_until_red(stand.url)
        num_answered = asking.statuses[200]
        asking.stopped.set()
        for client in clients:
            client.result(timeout=END_SECONDS)
        assert stand.server.process.wait(timeout=END_SECONDS) == 0
    assert asking.wrong == []
    assert num_answered > NUM_CLIENTS
    assert complaints(stand) == []


def test_fault_22_readiness_turns_red_before_anything_else(tmp_path: Path) -> None:
    with standing(tmp_path, "--drain-seconds", "2") as stand:
        stand.server.process.terminate()
        wait_until_red(stand.url)
        assert httpx.get(f"{stand.url}/v2/health/ready").status_code == 503
        assert httpx.get(f"{stand.url}/health/live").status_code == 200
        assert httpx.post(f"{stand.url}/predict", content=stand.body()).status_code == 200
        assert stand.server.process.wait(timeout=END_SECONDS) == 0


def test_fault_22_what_runs_when_sigterm_comes_is_answered(tmp_path: Path) -> None:
    with standing(tmp_path, model=SLOW) as stand, connected(stand.url) as connection:
        connection.sendall(request("/predict", stand.body()))
        time.sleep(0.1)
        stand.server.process.terminate()
        reply = read_one(connection)
        assert reply.status == 200
        assert scores_of(reply.document) == expected_bits(SLOW, stand.instance[None])
        assert stand.server.process.wait(timeout=END_SECONDS) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_fault_22_a_second_sigterm_ends_it_at_once(tmp_path: Path, workers: str) -> None:
    with standing(tmp_path, "--drain-seconds", "60", "--workers", workers) as stand:
        started = time.perf_counter()
        stand.server.process.terminate()
        time.sleep(0.5)
        stand.server.process.terminate()
        stand.server.process.wait(timeout=END_SECONDS)
        assert time.perf_counter() - started < 15
    assert "Traceback" not in "".join(stand.server.err)


def test_fault_22_slow_clients_do_not_hold_up_the_end(tmp_path: Path) -> None:
    with standing(tmp_path, "--receive-seconds", "2") as stand, connected(stand.url) as connection:
        connection.sendall(head("/predict", 100) + b"{")
        time.sleep(0.2)
        stand.server.process.terminate()
        assert stand.server.process.wait(timeout=END_SECONDS / 2) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT], ids=lambda number: number.name)
def test_fault_22_a_worker_that_dies_is_replaced_and_the_others_go_on(tmp_path: Path, number: signal.Signals) -> None:
    with standing(tmp_path, "--workers", "2") as stand:
        before = workers_of(stand.pid, at_least=2)
        os.kill(before[0], number)
        statuses = [httpx.post(f"{stand.url}/predict", content=stand.body()).status_code for _ in range(20)]
        assert set(statuses) == {200}
        after = workers_of(stand.pid, at_least=2, without=before[0])
        assert before[1] in after
        assert any(f"exit code -{int(number)}" in line for line in stand.server.err)
        check_alive_and_right(stand)
        stand.server.process.terminate()
        assert stand.server.process.wait(timeout=END_SECONDS) == 0
        assert not any(psutil.pid_exists(worker) for worker in after)


def workers_of(pid: int, *, at_least: int, without: int = 0) -> list[int]:
    """Wait until so many workers are there, none of them the one that is to be gone."""
    until = time.perf_counter() + END_SECONDS
    while True:
        children = psutil.Process(pid).children()
        workers = [child.pid for child in children if any("spawn_main" in part for part in _command(child))]
        if len(workers) >= at_least and without not in workers:
            return workers
        if time.perf_counter() > until:
            raise AssertionError(f"expected {at_least} workers, there are {workers}")
        time.sleep(0.05)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def test_fault_22_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with standing(tmp_path, "--workers", "2") as stand:
        workers = workers_of(stand.pid, at_least=2)
        stand.server.process.kill()
        stand.server.process.wait()
        until = time.perf_counter() + END_SECONDS / 2
        while any(map(_is_running, workers)):
            if time.perf_counter() > until:
                for worker in workers:
                    os.kill(worker, signal.SIGKILL)
                raise AssertionError("the workers serve on without their parent, and hold the port")
            time.sleep(0.1)


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_fault_22_a_signal_to_all_processes_at_once_is_one_signal(tmp_path: Path) -> None:
    """As systemd, and a terminal, send it: the parent passes on what the workers have got already."""
    with standing(tmp_path, "--drain-seconds", "1", "--workers", "2") as stand:
        children = psutil.Process(stand.server.process.pid).children(recursive=True)
        started = time.perf_counter()
        for pid in (stand.server.process.pid, *(child.pid for child in children)):
            os.kill(pid, signal.SIGTERM)
        stand.server.process.wait(timeout=END_SECONDS)
        assert time.perf_counter() - started > 0.9  # it has drained
    assert "Traceback" not in "".join(stand.server.err)
