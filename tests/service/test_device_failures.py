"""A GPU that fails: what may pass is an answer, what can not ends the process, and none of it is silent."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from service.app import App, create_app
from service.device_failures import explain_failure
from service.errors import DeviceLost, DeviceOutOfMemory, PredictionFailed
from service.protocols.answer import Answer
from service.protocols.contract import Question
from service.protocols.paths import OWN
from service.session import Batch
from service.settings import Settings
from tests.service.running_server import running_server
from tests.service.tiny_models import tiny_model, write_tiny_bundle

BODY = b'{"instance":[1,2,3,4]}'
ILLEGAL = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=x ; expr=cudaStreamSynchronize"
NO_MEMORY = "Non-zero status code. Failed to allocate memory for requested buffer of size 1048576"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (ILLEGAL, DeviceLost),
        ("CUDA error 719: unspecified launch failure", DeviceLost),
        ("CUDA failure 2: out of memory ; GPU=0", DeviceOutOfMemory),
        (NO_MEMORY, DeviceOutOfMemory),
        ("CUDA failure 222: the provided PTX was compiled with an unsupported toolchain", PredictionFailed),
        ("the sizes 700 and 719 do not fit", PredictionFailed),
    ],
)
def test_what_a_failure_means_is_read_from_what_the_runtime_says(message: str, kind: type[Exception]) -> None:
    assert type(explain_failure(message)) is kind


def ask_failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str) -> tuple[Answer, App, int]:
    """Serve, let the next run fail with this message, and count how often the app asked to be ended."""
    stops: list[None] = []

    def fail(self: Batch) -> None:
        raise explain_failure(message)

    async def main() -> tuple[Answer, App]:
        write_tiny_bundle(tmp_path, tiny_model())
        app = create_app(Settings(models=tmp_path, device="cpu", watch_seconds=0))
        app.stop = lambda: stops.append(None)
        async with app.running():
            served = app.directory.find("digits")
            with monkeypatch.context() as patch:
                patch.setattr(Batch, "run", fail)
                answer = served.lanes[OWN].ask(Question(BODY), lambda _: None)
            assert isinstance(answer, Answer)
            was_ready = app.directory.ready
            assert was_ready == (not stops)
            return answer, app

    answer, app = asyncio.run(main())
    return answer, app, len(stops)


def test_a_device_that_is_out_of_memory_is_507_and_the_server_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, app, num_stops = ask_failing(tmp_path, monkeypatch, NO_MEMORY)
    assert (answer.status, json.loads(answer.body)["code"]) == (507, "device_out_of_memory")
    assert (num_stops, app.failure) == (0, None)


def test_a_device_that_is_lost_is_503_and_the_process_ends_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer, app, num_stops = ask_failing(tmp_path, monkeypatch, ILLEGAL)
    assert (answer.status, json.loads(answer.body)["code"]) == (503, "device_lost")
    assert num_stops == 1
    assert isinstance(app.failure, DeviceLost)
    assert "illegal memory access" in caplog.text


SERVE_AND_FAIL = """
import os, sys
from service.__main__ import main
from service.session import Batch
from service.device_failures import explain_failure

run = Batch.run

def fail(self):
    if os.path.exists(sys.argv[1]):
        raise explain_failure("CUDA failure 700: an illegal memory access was encountered")
    run(self)

Batch.run = fail
sys.exit(main(sys.argv[2:]))
"""


def test_a_server_whose_device_is_lost_says_so_and_exits_with_a_failure(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    script = tmp_path / "failing.py"
    script.write_text(SERVE_AND_FAIL)
    switch = tmp_path / "fail"
    arguments = (str(switch), "--models", str(tmp_path), "--device", "cpu")
    with running_server(*arguments, command=(str(script),)) as server:
        with server.client() as client:
            assert client.post("/predict", content=BODY).status_code == 200
            switch.touch()
            assert client.post("/predict", content=BODY).status_code == 503
        assert server.process.wait(timeout=30) == 1
    assert "the GPU is lost to this process" in "".join(server.err)
    assert server.process.returncode != -signal.SIGTERM
