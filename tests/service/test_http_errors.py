"""Errors as answers."""

from __future__ import annotations

import json

import pytest

from service.errors import FoldserveError, InstanceInvalid, PredictionFailed, RequestError
from service.protocols.http_errors import STATUS, answer_error


def test_a_refusal_says_where_what_and_why() -> None:
    error = InstanceInvalid("instance[3]: expected a number, got null", field="instance[3]", expected="a number")
    answer = answer_error(error)
    assert answer.status == 422
    assert json.loads(answer.body) == {
        "error": "instance[3]: expected a number, got null",
        "code": "instance_invalid",
        "field": "instance[3]",
        "expected": "a number",
    }


@pytest.mark.parametrize("kind", RequestError.__subclasses__())
def test_every_mistake_of_a_client_has_a_status_of_its_own(kind: type[FoldserveError]) -> None:
    assert 400 <= STATUS[kind] < 500


def test_a_failure_of_the_runtime_is_ours() -> None:
    assert answer_error(PredictionFailed("it broke")).status == 500
