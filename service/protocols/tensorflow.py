"""TensorFlow Serving's REST API, without any transport: instances as rows or as columns, and what describes a model.

    {"instances": [[0.1, 0.2], …]}   →  {"predictions": [[1.25, -0.5], …]}
    {"inputs": {"x": [[0.1, 0.2], …]}}   →  {"outputs": [[1.25, -0.5], …]}

Both may have `"signature_name": "serving_default"`, the only signature there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from service.bundle import TensorSpec
from service.errors import FoldserveError, RequestInvalid
from service.protocols.answer import Answer
from service.protocols.contract import Outputs, Question, Work
from service.protocols.http_errors import STATUS_ELSEWHERE, answer_error
from service.protocols.input_columns import InputColumns
from service.protocols.instance_lists import InstanceLists
from service.protocols.json_document import (
    LONG_BODY,
    Document,
    check_keys,
    choose_key,
    read_document,
    try_reading,
)
from service.protocols.predict import USUAL_MEDIA_TYPES, check_media_type
from service.protocols.predictions import write_columns, write_rows
from service.repository import ServedModel
from service.wording import describe

SIGNATURE_NAME = "serving_default"
EXPECTED = '{"instances": […]} or {"inputs": …}'
KEYS = ("instances", "inputs", "signature_name")

State = Literal["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]
TYPES = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "int64": "DT_INT64", "int32": "DT_INT32", "bool": "DT_BOOL"}


class TensorFlowServing:
    """The `:predict` of one model version."""

    def __init__(self, model: ServedModel) -> None:
        signature = model.predictor.signature
        self._lists = InstanceLists(signature)
        self._columns = InputColumns(signature)
        self._specs = signature.outputs

    def try_read(self, question: Question) -> Work | None:
        """Read a good request of the usual kind."""
        if len(question.body) > LONG_BODY or question.headers.content_type not in USUAL_MEDIA_TYPES:
            return None
        instances = self._lists.try_body(question.body)
        if instances is not None:
            return Work(instances, self._write_predictions)
        return try_reading(question.body, self._read)

    def read(self, question: Question) -> Work:
        """Read any request, or say what is wrong with it."""
        check_media_type(question.headers.content_type)
        instances = self._lists.try_body(question.body)
        if instances is not None:
            return Work(instances, self._write_predictions)
        return self._read(read_document(question.body, EXPECTED))

    def refuse(self, error: FoldserveError) -> Answer:
        """Say why there is no prediction."""
        return answer_error(error, STATUS_ELSEWHERE)

    def _read(self, document: Document) -> Work:
        check_keys(document, KEYS)
        check_signature_name(document)
        if choose_key(document, ("instances", "inputs")) == "instances":
            return Work(self._lists.read(document["instances"], "instances"), self._write_predictions)
        return Work(self._columns.read(document["inputs"], "inputs"), self._write_outputs)

    def _write_predictions(self, outputs: Outputs) -> Answer:
        return Answer(200, b'{"predictions":' + write_rows(outputs, self._specs) + b"}")

    def _write_outputs(self, outputs: Outputs) -> Answer:
        return Answer(200, b'{"outputs":' + write_columns(outputs, self._specs) + b"}")


def check_signature_name(document: Document) -> None:
    """Refuse any signature but the one there is.

    Raises:
        RequestInvalid: another one is asked for.
    """
    name = document.get("signature_name", SIGNATURE_NAME)
    if name not in (SIGNATURE_NAME, ""):
        raise RequestInvalid(
            f"signature_name: expected {SIGNATURE_NAME!r}, or no such key; got {describe(name)}",
            field="signature_name",
            expected=SIGNATURE_NAME,
            got=describe(name),
        )


@dataclass(frozen=True, kw_only=True)
class VersionStatus:
    """What one version of a model does at the moment. `error_code` is a name of gRPC's, such as NOT_FOUND."""

    version: str
    state: State
    error_code: str = "OK"
    error_message: str = ""


def describe_status(versions: Iterable[VersionStatus]) -> dict[str, Any]:
    """Give the document of `GET /v1/models/<name>`."""
    return {
        "model_version_status": [
            {
                "version": each.version,
                "state": each.state,
                "status": {"error_code": each.error_code, "error_message": each.error_message},
            }
            for each in versions
        ]
    }


def describe_metadata(model: ServedModel) -> dict[str, Any]:
    """Give the document of `GET /v1/models/<name>/metadata`."""
    signature = model.predictor.signature
    definition = {
        "inputs": {signature.input.name: _describe_tensor(signature.input)},
        "outputs": {spec.name: _describe_tensor(spec) for spec in signature.outputs},
        "method_name": "tensorflow/serving/predict",
    }
    named = {"name": model.name, "signature_name": ""}
    return {
        "model_spec": named if model.version is None else {**named, "version": model.version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE_NAME: definition}}},
    }


def _describe_tensor(spec: TensorSpec) -> dict[str, Any]:
    """Describe a tensor with its batch axis, whose size is -1. Sizes are texts, as protobuf writes 64 bits in JSON."""
    sizes = [{"size": str(size), "name": ""} for size in (-1, *spec.shape)]
    return {
        "dtype": TYPES.get(spec.dtype, "DT_INVALID"),
        "tensor_shape": {"dim": sizes, "unknown_rank": False},
        "name": spec.name,
    }
