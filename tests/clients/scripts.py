"""Runs a client's script in its environment, once for all tests that look at what it said."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import is_ready, python_of
from tests.clients.task import Task, write_task

ROOT = Path(__file__).parent.parent.parent
PATIENCE_SECONDS = 120
# The others run in our own environment.
ENVIRONMENTS = {"kserve_rest": "kserve", "mlserver_codecs": "mlserver", "mlserver_infer": "mlserver"}


class Said:
    """What each client said of one task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._answers: dict[str, dict[str, Any]] = {}

    def by(self, script: str) -> dict[str, Any]:
        """Give what a script said; skip the test where its client is not installed."""
        environment = ENVIRONMENTS.get(script)
        if not is_ready(environment):
            pytest.skip(f"{environment} is not in .venv-clients/: `make clients` puts it there")
        if script not in self._answers:
            self._answers[script] = _run(script, environment, self._task)
        return self._answers[script]


def _run(script: str, environment: str | None, task: Task) -> dict[str, Any]:
    command = [python_of(environment), "-m", f"tests.clients.{script}"]
    finished = subprocess.run(
        command, cwd=ROOT, input=write_task(task), capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    if finished.returncode:
        raise RuntimeError(f"{script} failed: {finished.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return answer
