"""Fixtures of the faults: one maltreated server for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.standing import Standing, standing

MAX_BODY_BYTES = 12_000_000  # so that 10 MB of nonsense come as far as the reader


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A server whose limits are short."""
    limits = ("--max-body-bytes", str(MAX_BODY_BYTES), "--header-seconds", "1", "--receive-seconds", "2")
    with standing(tmp_path_factory.mktemp("models"), *limits, "--write-seconds", "2") as running:
        yield running
