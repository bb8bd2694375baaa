"""The whole OpenAPI document, taken at its word: what it allows is never a 5xx, and each answer is as it promises.

schemathesis draws requests from the document itself, good ones and slightly wrong ones, for each operation that stands
there; so a new route is tested as soon as it is described.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode

from tests.service.exact_models import exact_instances, exact_model, expected_bits, write_exact_bundle
from tests.service.running_server import RunningServer, running_server

NUM_EXAMPLES = 15  # of each operation: about half a minute for all
SEED = 7
PROMISES = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODEL = exact_model((4,), num_labels=3)

# Names that are drawn mean no model at all, so each path is also asked with those that do.
KNOWN = {"name": "digits", "model": "digits", "version": "1"}
WAYS: tuple[tuple[GenerationMode, dict[str, str]], ...] = (
    (GenerationMode.POSITIVE, {}),
    (GenerationMode.NEGATIVE, {}),
    (GenerationMode.POSITIVE, KNOWN),
)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("models")
    write_exact_bundle(root, MODEL)
    arguments = ("--models", str(root), "--device", "cpu", "--watch-seconds", "0", "--max-body-bytes", "100000")
    with running_server(*arguments) as server:
        yield server


@pytest.fixture(scope="module")
def api(described: RunningServer) -> Any:
    return schemathesis.openapi.from_url(f"{described.url}/openapi.json")


def test_every_operation_answers_as_the_document_says(api: Any) -> None:
    """One test for all: which operations there are is known only when the server runs."""
    operations = [result.ok() for result in api.get_all_operations()]
    operations.sort(key=lambda operation: operation.path.endswith("/unload"))  # last: nothing is served after that
    problems = [problem for operation in operations for way in WAYS for problem in _find_problems(operation, *way)]
    assert len(operations) > 10
    assert not problems, "\n\n".join(problems)


def _find_problems(operation: Any, mode: GenerationMode, known: dict[str, str]) -> list[str]:
    """Ask what the document allows, or does not; say what was wrong with an answer, if one was."""

    fixed = {name: value for name, value in known.items() if f"{{{name}}}" in operation.path}
    if known and not fixed:
        return []

    @seed(SEED)
    @settings(
        max_examples=NUM_EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=fixed or None))
    def ask(case: Any) -> None:
        case.call_and_validate(checks=PROMISES, timeout=10)

    try:
        ask()
    except Unsatisfiable:  # where there is nothing to send, nothing can be wrong with it
        return []
    except (Failure, FailureGroup) as err:
        return [f"{operation.label}, {mode.value}: {err}"]
    return []


def test_after_all_that_it_answers_as_the_oracle_does(described: RunningServer) -> None:
    instance = exact_instances(MODEL, 1)
    with described.client() as client:
        client.post("/v2/repository/models/digits/load")
        scores = client.post("/predict", json={"instance": instance[0].tolist()}).json()["prediction"]["scores"]
    assert np.array(scores, np.float32).tobytes() == expected_bits(MODEL, instance)
    assert "Traceback" not in "".join(described.err)
