"""Fixtures of the service's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.running_server import RunningServer, running_server
from tests.service.tiny_models import TinyModel, tiny_model, write_tiny_bundle


@pytest.fixture(scope="session")
def digits() -> TinyModel:
    """Ten labels over 64 values."""
    return tiny_model((64,), num_labels=10, labels=tuple("0123456789"))


@pytest.fixture(scope="module")
def server(digits: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real server of one bundle."""
    root: Path = tmp_path_factory.mktemp("models")
    write_tiny_bundle(root, digits)
    with running_server("--models", str(root), "--device", "cpu", "--max-body-bytes", "20000") as running:
        yield running
