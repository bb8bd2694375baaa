"""Every setting of the server, read once from the command line and the environment into one frozen object.

`--max-body-bytes` on the command line is `FOLDSERVE_MAX_BODY_BYTES` in the environment, and so for all of them; the
command line wins. This is the only file that looks at the environment.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from service.device import Device
from service.errors import SettingsInvalid

# prometheus-client's own name; it looks for it when it is imported.
METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


class Settings(BaseSettings):
    """Serve models over HTTP: POST one instance, get one prediction."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_prefix="FOLDSERVE_",
        cli_prog_name="python -m service",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
        use_attribute_docstrings=True,
    )

    models: Path = Path("models")
    """a directory of bundles (<name>/<version>/), one bundle, or one .onnx file"""

    default_model: str | None = None
    """the model that POST /predict asks, where there are several"""

    host: str = "127.0.0.1"
    """the address to listen on"""

    port: int = Field(default=8000, ge=0, le=65535)
    """the port to listen on; 0 takes a free one"""

    device: Device = "auto"
    """auto: the GPU, or the CPU and say why; cuda: the GPU, or do not start"""

    workers: int = Field(default=1, ge=1, le=256)
    """how many processes share the port"""

    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1)
    """a longer request body is refused"""

    drain_seconds: float = Field(default=0.0, ge=0.0, le=3600.0)
    """after SIGTERM, how long to go on answering while /health/ready already says no"""


def read_settings(arguments: Sequence[str]) -> Settings:
    """Read the settings from command line arguments, and from the environment what these leave open.

    Raises:
        SettingsInvalid: names the setting, what was expected and what arrived.
    """
    try:
        return CliApp.run(Settings, cli_args=list(arguments))
    except ValidationError as err:
        raise SettingsInvalid("; ".join(map(_say, err.errors()))) from err
    except SettingsError as err:
        raise SettingsInvalid(str(err).removeprefix("error parsing CLI: ")) from err


def metrics_directory() -> str | None:
    """Where the workers of one server put their numbers together; None where there is one process only."""
    return os.environ.get(METRICS_DIRECTORY) or None


@contextmanager
def shared_metrics_directory() -> Iterator[None]:
    """Give the processes started meanwhile an empty directory for their metrics, and remove it afterwards."""
    before = os.environ.get(METRICS_DIRECTORY)
    with tempfile.TemporaryDirectory(prefix="foldserve-metrics-", ignore_cleanup_errors=True) as directory:
        os.environ[METRICS_DIRECTORY] = directory
        try:
            yield
        finally:
            _restore(before)


def _restore(before: str | None) -> None:
    if before is None:
        del os.environ[METRICS_DIRECTORY]
    else:
        os.environ[METRICS_DIRECTORY] = before


def _say(error: object) -> str:
    details = dict(error)  # type: ignore[call-overload]
    flag = "--" + ".".join(map(str, details["loc"])).replace("_", "-")
    return f"{flag}: {details['msg'][0].lower()}{details['msg'][1:]}, got {details['input']!r}"
