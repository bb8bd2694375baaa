"""Who is measured: each server, how it is started, how it is asked; and which of them take part in which run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.dialects import MOSEC, OPEN_INFERENCE, OPEN_INFERENCE_RAW, PLAIN, TENSORFLOW, V2, Dialect
from benchmarks.models import BuiltModel


@dataclass(frozen=True)
class Stage:
    """What a server is started for: a model, a port, and how long our answers are, which only a floor needs to know."""

    built: BuiltModel
    port: int
    answer_bytes: int


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A server: `command` gives what follows `python -m`; `environment` is whose python, None for our own.

    A floor answers the right number of bytes and nothing else.
    """

    name: str
    command: Callable[[Stage], list[str]]
    environment: str | None = None
    dialect: Dialect = PLAIN
    workers: int = 1
    is_floor: bool = False


def _floor(parser: str, stage: Stage) -> list[str]:
    return ["benchmarks.peers.floor", str(stage.answer_bytes), str(stage.port), parser]


def _tutorial(threads: str, stage: Stage) -> list[str]:
    return ["benchmarks.peers.tutorial", str(stage.built.bundle.model_path), str(stage.port), threads]


def _service(options: tuple[str, ...], stage: Stage) -> list[str]:
    models, port = str(stage.built.bundle.directory), str(stage.port)
    return ["service", "--models", models, "--device", "cpu", "--port", port, *options]


def _installed(name: str, stage: Stage) -> list[str]:
    return [f"benchmarks.peers.{name}", str(stage.built.bundle.model_path), str(stage.port)]


def _other(name: str, dialect: Dialect = PLAIN) -> Peer:
    return Peer(name=name, command=partial(_installed, name), environment=name, dialect=dialect)


FLOOR = Peer(name="floor", command=partial(_floor, "httptools"), is_floor=True)
FLOOR_ZTTP = Peer(name="floor-zttp", command=partial(_floor, "zttp"), is_floor=True)
TUTORIAL = Peer(name="tutorial", command=partial(_tutorial, "0"))
TUTORIAL_ONE_THREAD = Peer(name="tutorial-1", command=partial(_tutorial, "1"))
LITSERVE, BENTOML = _other("litserve"), _other("bentoml")
MLSERVER, MOSEC_SERVER = _other("mlserver", V2), _other("mosec", MOSEC)
FOLDSERVE = Peer(name="foldserve", command=partial(_service, ()))
FOLDSERVE_ASGI = Peer(name="foldserve-asgi", command=partial(_service, ("--http", "asgi")))
FOLDSERVE_TWO = Peer(name="foldserve-2", command=partial(_service, ("--workers", "2")), workers=2)
# The same process, asked in another protocol. A floor's answers are as long as ours in its own dialect.
FOLDSERVE_V2 = replace(FOLDSERVE, name="foldserve-v2", dialect=OPEN_INFERENCE)
FOLDSERVE_TENSORFLOW = replace(FOLDSERVE, name="foldserve-tensorflow", dialect=TENSORFLOW)
FLOOR_RAW = replace(FLOOR, name="floor-raw", dialect=OPEN_INFERENCE_RAW)
FOLDSERVE_RAW = replace(FOLDSERVE, name="foldserve-raw", dialect=OPEN_INFERENCE_RAW)
IN_OTHER_PROTOCOLS = (FOLDSERVE_V2, FOLDSERVE_TENSORFLOW, FLOOR_RAW, FOLDSERVE_RAW)

# In the order of the tables.
EVERYONE = (
    *(FLOOR, FLOOR_ZTTP, TUTORIAL, TUTORIAL_ONE_THREAD, LITSERVE, BENTOML, MLSERVER, MOSEC_SERVER),
    *(FOLDSERVE_TWO, FOLDSERVE_ASGI, FOLDSERVE, *IN_OTHER_PROTOCOLS),
)
RANK = {peer.name: place for place, peer in enumerate(EVERYONE)}
# Whose floor reads bytes; JSON of the same length has the same floor, whatever it says.
HAVE_RAW_FLOOR = frozenset({FLOOR_RAW.name, FOLDSERVE_RAW.name})
OTHERS = (LITSERVE, BENTOML, MLSERVER, MOSEC_SERVER)
# Beside whom everything is measured, and who is asked at a pace too.
ALWAYS = (FLOOR, TUTORIAL, FOLDSERVE)


def cast(*, with_peers: bool) -> tuple[Peer, ...]:
    """Who takes part: beside other model servers, or with the variants of ours and of the floor and the tutorial.

    The variants are also the other protocols that ours speaks.
    """
    if with_peers:
        return (FLOOR, TUTORIAL, *OTHERS, FOLDSERVE)
    asgi = (FOLDSERVE_ASGI,) if service_has("--http") else ()
    return (FLOOR, FLOOR_ZTTP, TUTORIAL, TUTORIAL_ONE_THREAD, FOLDSERVE_TWO, *asgi, FOLDSERVE, *IN_OTHER_PROTOCOLS)


def service_has(option: str) -> bool:
    """Whether the service knows a command line option."""
    command = [sys.executable, "-m", "service", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f" {option} " in said
