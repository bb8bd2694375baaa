"""Vertex AI's contract for containers that predict, without any transport.

    {"instances": [[0.1, 0.2], …], "parameters": {…}}
    →  {"predictions": [[1.25, -0.5], …], "deployed_model": {"name": "digits", "version": "4"}}

The models take no parameters: an object of them is allowed, and changes nothing. A request of the Open Inference
Protocol in Triton's media type for Vertex AI, which has its header's length in it, is read as such.
"""

from __future__ import annotations

import msgspec

from service.errors import FoldserveError, RequestInvalid
from service.protocols.answer import Answer
from service.protocols.contract import Outputs, Question, Work
from service.protocols.http_errors import STATUS_ELSEWHERE, answer_error
from service.protocols.instance_lists import InstanceLists
from service.protocols.json_document import (
    LONG_BODY,
    Document,
    check_keys,
    read_document,
    try_reading,
)
from service.protocols.open_inference.contract import OpenInference
from service.protocols.predict import USUAL_MEDIA_TYPES, check_media_type
from service.protocols.predictions import write_rows
from service.repository import ServedModel
from service.wording import describe

EXPECTED = '{"instances": […]}'
KEYS = ("instances", "parameters")
BINARY = b"application/vnd.vertex-ai-triton.binary+json"


class VertexAI:
    """The predict route of one model version."""

    def __init__(self, model: ServedModel) -> None:
        self._open_inference = OpenInference(model)
        self._lists = InstanceLists(model.predictor.signature)
        self._specs = model.predictor.signature.outputs
        named = {"name": model.name} if model.version is None else {"name": model.name, "version": model.version}
        self._tail = b',"deployed_model":' + msgspec.json.encode(named) + b"}"

    def try_read(self, question: Question) -> Work | None:
        """Read a good request of the usual kind."""
        if len(question.body) > LONG_BODY or question.headers.content_type not in USUAL_MEDIA_TYPES:
            return None
        instances = self._lists.try_body(question.body)
        if instances is not None:
            return Work(instances, self._write)
        return try_reading(question.body, self._read)

    def read(self, question: Question) -> Work:
        """Read any request, or say what is wrong with it."""
        if question.headers.content_type.lower().startswith(BINARY):
            return self._open_inference.read(question)
        check_media_type(question.headers.content_type)
        instances = self._lists.try_body(question.body)
        if instances is not None:
            return Work(instances, self._write)
        return self._read(read_document(question.body, EXPECTED))

    def refuse(self, error: FoldserveError) -> Answer:
        """Say why there is no prediction."""
        return answer_error(error, STATUS_ELSEWHERE)

    def _read(self, document: Document) -> Work:
        check_keys(document, KEYS)
        _check_parameters(document.get("parameters"))
        if "instances" not in document:
            raise RequestInvalid("the key 'instances' is missing", field="instances", expected=EXPECTED)
        return Work(self._lists.read(document["instances"], "instances"), self._write)

    def _write(self, outputs: Outputs) -> Answer:
        return Answer(200, b'{"predictions":' + write_rows(outputs, self._specs) + self._tail)


def _check_parameters(parameters: object) -> None:
    if parameters is not None and not isinstance(parameters, dict):
        got = describe(parameters)
        raise RequestInvalid(
            f"parameters: expected an object, or null; got {got}", field="parameters", expected="an object", got=got
        )
