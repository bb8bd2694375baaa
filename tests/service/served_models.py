"""Real served models for tests of protocols, and what a client gets for a request, without any transport."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from service.batching import Batching
from service.bundle import Signature
from service.errors import FoldserveError
from service.predictor import open_predictor
from service.protocols.answer import Answer
from service.protocols.contract import Contract, Headers, Outputs, Question, Work
from service.repository import ServedModel
from tests.service.tiny_models import TinyModel


def serve(model: TinyModel, directory: Path) -> ServedModel:
    """Serve a tiny model as version 4 of `digits`."""
    return serve_file(model.save(directory / "model.onnx"), model.signature)


def serve_file(path: Path, signature: Signature, version: str | None = "4") -> ServedModel:
    """Serve one ONNX file."""
    predictor = open_predictor(path, signature, "cpu")
    batching = Batching(reason="one at a time, for tests")
    return ServedModel(
        name="digits",
        version=version,
        path=path,
        predictor=predictor,
        self_check=predictor.self_check((), {}),
        is_short=True,
        batching=batching,
        batches=predictor.open_batches(batching),
    )


def read(contract: Contract, body: bytes, headers: Headers = Headers()) -> Work:  # noqa: B008 - a value
    """Read a request as the server does, and see that both ways of reading agree."""
    question = Question(body, headers)
    quick = contract.try_read(question)
    thorough = contract.read(question)
    assert quick is None or list(quick.instances) == list(thorough.instances)
    return thorough


def ask(model: ServedModel, contract: Contract, body: bytes, headers: Headers = Headers()) -> Answer:  # noqa: B008
    """Give the answer to a request, whatever it is."""
    try:
        work = read(contract, body, headers)
        return work.write(run(model, work))
    except FoldserveError as err:
        return contract.refuse(err)


def run(model: ServedModel, work: Work) -> Outputs:
    """Compute one instance after the other."""
    parts = [tuple(output.copy() for output in model.batches.compute([each])) for each in work.instances]
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))
