"""Settings come from the command line and the environment, into one value that nobody changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import SettingsInvalid
from service.settings import read_settings


def test_without_a_word_it_serves_the_models_directory_to_this_machine_only() -> None:
    settings = read_settings([])
    assert (settings.models, settings.host, settings.port) == (Path("models"), "127.0.0.1", 8000)
    assert (settings.device, settings.workers, settings.default_model) == ("auto", 1, None)


def test_the_environment_is_read_and_the_command_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSERVE_PORT", "9001")
    monkeypatch.setenv("FOLDSERVE_MAX_BODY_BYTES", "77")
    assert read_settings([]).port == 9001
    assert read_settings(["--port", "9002"]).port == 9002
    assert read_settings([]).max_body_bytes == 77


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(ValidationError):
        read_settings([]).port = 1


def test_a_wrong_value_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSERVE_DEVICE", "tpu")
    with pytest.raises(SettingsInvalid, match="'auto', 'cuda', 'cpu', 'fastest' or 'tensorrt', got 'tpu'"):
        read_settings([])
