"""Every setting of the server, read once from the command line and the environment into one frozen object.

`--max-body-bytes` on the command line is `FOLDSERVE_MAX_BODY_BYTES` in the environment, and so for all of them; the
command line wins. This is the only file that looks at the environment, but for the doctor's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from service.device import GpuOptions, ServingDevice
from service.errors import SettingsInvalid
from service.vertex_environment import VertexEnvironment, read_vertex_environment

SERVE = "serve"
SAGEMAKER_MODEL = Path("/opt/ml/model")


class Settings(BaseSettings):
    """Serve models over HTTP: POST one instance, get one prediction."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_prefix="FOLDSERVE_",
        cli_prog_name="python -m service",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
        use_attribute_docstrings=True,
    )

    models: Path = Path("models")
    """a directory of bundles (<name>/<version>/), one bundle, or one .onnx file"""

    default_model: str | None = None
    """the model that POST /predict asks, where there are several"""

    versions: int = Field(default=2, ge=0)
    """how many of the newest versions of each model stay loaded; 0: all"""

    watch_seconds: float = Field(default=1.0, ge=0.0, le=3600.0)
    """how often to look for new versions; 0: only when asked by request"""

    host: str = "127.0.0.1"
    """the address to listen on"""

    port: int = Field(default=8000, ge=0, le=65535)
    """the port to listen on; 0 takes a free one"""

    device: ServingDevice = "auto"
    """auto: the GPU, or the CPU and say why; cuda: the GPU, or do not start; fastest: measured at start"""

    bitwise: bool = True
    """run instances together only where not one bit of an answer changes"""

    tf32: bool = False
    """let a GPU round to 10 bits in products: faster, and other answers than the CPU's in the fourth digit"""

    engine_cache: Path | None = None
    """where --device tensorrt keeps what it compiled, if not in the user's cache"""

    workers: int = Field(default=1, ge=1, le=256)
    """how many processes share the port"""

    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1)
    """a longer request body is refused"""

    receive_seconds: float = Field(default=30.0, ge=0.1, le=3600.0)
    """a request that is not here whole after that time is dropped"""

    header_seconds: float = Field(default=10.0, ge=0.1, le=3600.0)
    """a request whose head is not here whole after that time is dropped"""

    write_seconds: float = Field(default=30.0, ge=0.1, le=3600.0)
    """a client that reads nothing of its answer for that time is dropped"""

    max_queue: int = Field(default=0, ge=0, le=100_000)
    """how many requests may wait for a model, others are refused at once; 0: as many as it answers in a second"""

    max_connections: int = Field(default=10_000, ge=1, le=1_000_000)
    """of more connections to a process each further one is refused"""

    grpc_port: int | None = Field(default=None, ge=0, le=65535)
    """the port for gRPC, if it is wanted; 0 takes a free one"""

    keys: Path | None = None
    """the file of API keys; without one predictions are open, and models are managed from this machine only"""

    protect: str = "predict,manage"
    """which groups of routes want a key, of predict, read and manage; manage always does"""

    http: Literal["fast", "asgi"] = "fast"
    """fast: predictions are answered below ASGI; asgi: all goes through uvicorn, the same answers, slower"""

    tail_report: int = Field(default=0, ge=0, le=1000)
    """keep so many of the slowest predictions and why they were slow, for GET /tail-report; costs some µs a request"""

    spin_microseconds: int = Field(default=200, ge=0, le=10_000)
    """after an answer, how long to stay awake for the next request, where that has paid; 0: never"""

    log: Literal["text", "json", "off"] = "text"
    """how the log is written, to stderr"""

    log_sample: float = Field(default=0.0, ge=0.0, le=1.0)
    """which share of the requests gets a line; failures always do, and one refusal a second"""

    traces: str | None = None
    """the OTLP address of a collector for OpenTelemetry traces, such as http://localhost:4318"""

    trace_sample: float = Field(default=0.01, ge=0.0, le=1.0)
    """which share of the requests is traced, where the caller does not say"""

    drain_seconds: float = Field(default=0.0, ge=0.0, le=3600.0)
    """after SIGTERM, how long to go on answering while /health/ready already says no"""

    @model_validator(mode="after")
    def _check_grpc_port(self) -> Settings:
        """Several workers share a port, and none of them would know which one another was given."""
        if self.grpc_port == 0 and self.workers > 1:
            raise ValueError("grpc-port 0 takes a free port, and several workers need to know it: name one")
        return self

    @staticmethod
    def vertex() -> VertexEnvironment:
        """Say what Vertex AI tells this container, if it runs there.

        Raises:
            SettingsInvalid: it runs there, and a route is not set.
        """
        return read_vertex_environment(os.environ)

    def gpu_options(self) -> GpuOptions:
        """Say how a GPU is to be used."""
        cache = self.engine_cache
        if cache is None and self.device == "tensorrt":
            cache = Path.home() / ".cache" / "foldserve" / "tensorrt"
        return GpuOptions(tf32=self.tf32, engine_cache=cache)


def read_settings(arguments: Sequence[str]) -> Settings:
    """Read the settings from command line arguments, and from the environment what these leave open.

    The word `serve` in front, by which SageMaker starts a container, and AIP_MODE, by which Vertex AI does, bring the
    port, the host and the folder of these with them, where the command line does not name others.

    Raises:
        SettingsInvalid: names the setting, what was expected and what arrived.
    """
    words = list(arguments)
    platform = _sagemaker_arguments() if words[:1] == [SERVE] else _vertex_arguments(Settings.vertex())
    given = words[1:] if words[:1] == [SERVE] else words
    named = {word.partition("=")[0] for word in given}
    usual = [part for flag, value in platform.items() if flag not in named for part in (flag, value)]
    try:
        return CliApp.run(Settings, cli_args=[*usual, *given])
    except ValidationError as err:
        raise SettingsInvalid("; ".join(map(_say, err.errors()))) from err
    except SettingsError as err:
        raise SettingsInvalid(str(err).removeprefix("error parsing CLI: ")) from err


def _sagemaker_arguments() -> dict[str, str]:
    """Where SageMaker wants to be answered, and where it unpacks the model, if it did."""
    port = os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080")
    models = {"--models": str(SAGEMAKER_MODEL)} if SAGEMAKER_MODEL.exists() else {}
    return {"--host": "0.0.0.0", "--port": port, **models}  # noqa: S104 - it asks from outside the container


def _vertex_arguments(vertex: VertexEnvironment) -> dict[str, str]:
    return {"--host": "0.0.0.0", "--port": str(vertex.port)} if vertex.is_predicting else {}  # noqa: S104 - likewise


def _say(error: object) -> str:
    details = dict(error)  # type: ignore[call-overload]
    if not details["loc"]:  # of several settings together
        return f"--{details['msg'].removeprefix('Value error, ')}"
    flag = "--" + ".".join(map(str, details["loc"])).replace("_", "-")
    return f"{flag}: {details['msg'][0].lower()}{details['msg'][1:]}, got {details['input']!r}"
