"""A gRPC server of one tiny bundle, for tests: real but for the lane, which runs one request at a time.

    python -m tests.service.grpc_server <bundle> <port or 0>

Beside the bundle's model it serves `slow`, which answers after a minute; its statistics' `execution_count` is how many
of its requests were withdrawn. `RepositoryModelUnload` of `slow` takes it out of `ready`, and loading puts it back.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

from service.batching import Batching
from service.bundle import read_bundle
from service.errors import FoldserveError, KeyMissing, ModelUnknown, NotReady
from service.open_inference_grpc.catalog import Document
from service.open_inference_grpc.contract import OpenInferenceGrpc
from service.open_inference_grpc.server import GrpcOptions, Offer, start_grpc
from service.predictor import open_predictor
from service.protocols.answer import Answer
from service.protocols.contract import Headers, Question
from service.protocols.http_errors import answer_error
from service.protocols.open_inference.documents import (
    Statistics,
    describe_config,
    describe_metadata,
    describe_server,
    describe_statistics,
    index_entry,
    list_statistics,
)
from service.protocols.runner import Deliver, Withdraw
from service.repository import ServedModel

MAX_MESSAGE_BYTES = 100_000
MAX_CALLS = 64
SLOW = "slow"
BAD_KEY = b"Bearer bad"


class PlainLane:
    """Answers at once."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.num_counted = 0
        self._contract = OpenInferenceGrpc(model)

    def ask(self, question: Question, *_: object) -> Answer:
        try:
            work = self._contract.try_read(question) or self._contract.read(question)
            return work.write(self.model.batches.compute(work.instances))
        except FoldserveError as err:
            return self._contract.refuse(err)

    def count(self, *_: object) -> None:
        self.num_counted += 1


class SlowLane:
    """Answers after a minute, if nobody withdraws the request before."""

    def __init__(self) -> None:
        self.num_withdrawn = 0
        self.timeouts: list[bytes] = []

    def ask(self, question: Question, deliver: Deliver, _: float) -> Withdraw:
        self.timeouts.append(question.headers.timeout)
        alarm = asyncio.get_running_loop().call_later(60, deliver, Answer(200, b""))

        def withdraw() -> None:
            alarm.cancel()
            self.num_withdrawn += 1

        return withdraw

    def count(self, *_: object) -> None:
        raise RuntimeError("a request that was withdrawn has no answer to be counted")


class TinyCatalog:
    """One model, and the slow one."""

    def __init__(self, model: ServedModel) -> None:
        self.plain = PlainLane(model)
        self.slow = SlowLane()
        self.is_slow_loaded = True

    def find(self, name: str, version: str | None) -> PlainLane | SlowLane:
        if name == SLOW:
            return self.slow
        self._check(name, version)
        return self.plain

    def is_live(self) -> bool:
        return True

    def is_ready(self) -> bool:
        return self.is_slow_loaded

    def is_model_ready(self, name: str, version: str | None) -> bool:
        with suppress(ModelUnknown):
            self._check(name, version)
            return True
        return False

    def describe_server(self) -> Document:
        return describe_server("1.2.3")

    def describe_metadata(self, name: str, version: str | None) -> Document:
        return describe_metadata(self._check(name, version), ["4"])

    def describe_config(self, name: str, version: str | None) -> Document:
        return describe_config(self._check(name, version))

    def list_statistics(self, name: str, version: str | None) -> Document:
        statistics = Statistics(num_inferences=self.plain.num_counted, num_executions=self.slow.num_withdrawn)
        return list_statistics([describe_statistics(self._check(name or self.plain.model.name, version), statistics)])

    def list_repository(self, *, only_ready: bool) -> Sequence[Document]:
        entries = [index_entry(self.plain.model.name, "4", "READY")]
        return entries if only_ready else [*entries, index_entry("broken", "1", "UNAVAILABLE", "no such file")]

    async def load(self, name: str) -> None:
        self._check_slow(name)
        self.is_slow_loaded = True

    async def unload(self, name: str) -> None:
        self._check_slow(name)
        await asyncio.sleep(0)
        self.is_slow_loaded = False

    def _check(self, name: str, version: str | None) -> ServedModel:
        model = self.plain.model
        if (name, version or model.version) != (model.name, model.version):
            raise ModelUnknown(f"no model {name!r}, version {version!r}, is served here")
        return model

    def _check_slow(self, name: str) -> None:
        if name == "busy":
            raise NotReady("another model is being loaded")
        if name == "bug":
            raise ZeroDivisionError("a secret of the server")
        if name != SLOW:
            raise ModelUnknown(f"no model {name!r}")


def permit(call: str, headers: Headers) -> Answer | None:
    """Let everybody pass but those with a bad key; it may still ask for health."""
    if headers.authorization == BAD_KEY and call != "Check":
        return answer_error(KeyMissing("this key is not known here"))
    return None


def open_tiny(path: Path) -> ServedModel:
    """Open a bundle, to be run in batches of up to 8."""
    bundle = read_bundle(path)
    predictor = open_predictor(bundle.model_path, bundle.manifest.signature, "cpu")
    batching = Batching(sizes=(1, 2, 4, 8), reason="for tests")
    return ServedModel(
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        path=path,
        predictor=predictor,
        self_check=predictor.self_check((), {}),
        is_short=True,
        batching=batching,
        batches=predictor.open_batches(batching),
    )


async def main(path: Path, port: int) -> None:
    """Serve until there is no more on standard input, then stop with grace, and say what the slow lane was told."""
    catalog: Any = TinyCatalog(open_tiny(path))
    options = GrpcOptions(
        host="127.0.0.1", port=port, max_message_bytes=MAX_MESSAGE_BYTES, max_calls=MAX_CALLS, grace_seconds=1.0
    )
    server = await start_grpc(options, Offer(find=catalog.find, catalog=catalog, permit=permit))
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()
    sys.stdout.write(" ".join(timeout.decode() for timeout in catalog.slow.timeouts))


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2])))
