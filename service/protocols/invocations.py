"""POST /invocations, which SageMaker and MLflow share, without any transport: instances in many forms.

The media type says which form it is; of JSON, its keys do:

    application/json            dataframe_split, dataframe_records, instances or inputs, as MLflow reads them; a request
                                of the Open Inference Protocol; or our own {"instance": …}
    text/csv                    a line for each instance
    application/x-npy           what numpy.save writes
    application/octet-stream    the input's raw values, little-endian

The answer is {"predictions": […]}, but to the last two forms of JSON, which get their protocol's own. `Accept` may ask
for text/csv or application/x-npy instead: then it is the first output alone, the scores.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import orjson

from service.errors import FoldserveError, MediaTypeUnsupported, RequestInvalid
from service.protocols.answer import Answer
from service.protocols.contract import Outputs, Question, Work
from service.protocols.csv_rows import CsvRows
from service.protocols.dataframes import Dataframes
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
from service.protocols.number_bytes import read_npy, read_raw
from service.protocols.open_inference.contract import OpenInference
from service.protocols.predict import USUAL_MEDIA_TYPES, Endpoint, check_media_type
from service.protocols.predictions import refuse_not_finite, write_rows
from service.repository import ServedModel
from service.wording import describe

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
EXPECTED = f"an object with exactly one of the keys {', '.join(FORMS)}"
OPEN_INFERENCE_KEYS = {"name", "shape", "datatype"}
TENSORS, OWN, NEAR_THE_START = b'"datatype"', b'"instance"', 64
SAGEMAKER_BINARY = "application/vnd.sagemaker-triton.binary+json"
JSON, CSV, NPY, RAW = "application/json", "text/csv", "application/x-npy", "application/octet-stream"
QUALITY = re.compile(rb"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
# MLflow's names, by status; of other statuses, INTERNAL_ERROR.
ERROR_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "TEMPORARILY_UNAVAILABLE",
}


class Invocations:
    """The /invocations of one model version."""

    def __init__(self, model: ServedModel) -> None:
        signature = model.predictor.signature
        self._input, self._specs = signature.input, signature.outputs
        self._own, self._open_inference = Endpoint(model), OpenInference(model)
        self._csv, self._dataframes = CsvRows(signature), Dataframes(signature)
        self._lists = InstanceLists(signature)
        self._forms: dict[str, Callable[[Any, str], list[bytes]]] = {
            "dataframe_split": self._dataframes.read_split,
            "dataframe_records": self._dataframes.read_records,
            "instances": self._lists.read,
            "inputs": InputColumns(signature).read,
        }

    def try_read(self, question: Question) -> Work | None:
        """Read a good request of JSON. By which protocol is a guess here: what it does not read goes to `read`."""
        body, headers = question.body, question.headers
        if len(body) > LONG_BODY or headers.content_type not in USUAL_MEDIA_TYPES or headers.header_length:
            return None
        if TENSORS in body:
            return self._open_inference.try_read(question)
        if OWN in body[:NEAR_THE_START]:
            return self._own.try_read(question)
        instances = self._lists.try_body(body) or try_reading(body, self._read_form)
        return None if instances is None else Work(instances, self._choose_writer(headers.accept))

    def read(self, question: Question) -> Work:
        """Read any request, or say what is wrong with it."""
        content_type, accept = question.headers.content_type, question.headers.accept
        media_type = _take_media_type(content_type)
        if media_type == SAGEMAKER_BINARY or question.headers.header_length:
            return self._open_inference.read(question)
        if media_type in {JSON, ""}:
            check_media_type(content_type)
            return self._read_json(question)
        return Work(self._read_other(media_type, question), self._choose_writer(accept))

    def refuse(self, error: FoldserveError) -> Answer:
        """Say why there is no prediction: as elsewhere, and in MLflow's words beside it."""
        answer = answer_error(error, STATUS_ELSEWHERE)
        code = ERROR_CODES.get(answer.status, "INTERNAL_ERROR")
        body = {**msgspec.json.decode(answer.body), "error_code": code, "message": str(error)}
        return answer._replace(body=msgspec.json.encode(body))

    def _read_json(self, question: Question) -> Work:
        instances = self._lists.try_body(question.body)
        if instances is not None:
            return Work(instances, self._choose_writer(question.headers.accept))
        document = read_document(question.body, EXPECTED)
        if document.keys() == {"instance"}:
            return self._own.read(question)
        if _is_open_inference(document):
            return self._open_inference.read(question)
        return Work(self._read_form(document), self._choose_writer(question.headers.accept))

    def _read_form(self, document: Document) -> list[bytes]:
        form = choose_key(document, FORMS)
        check_keys(document, (*FORMS, "params"))
        _check_params(document.get("params"))
        return self._forms[form](document[form], form)

    def _read_other(self, media_type: str, question: Question) -> list[bytes]:
        _check_charset(question.headers.content_type)
        match media_type:
            case "text/csv":
                return self._csv.read(question.body)
            case "application/x-npy":
                return read_npy(question.body, self._input)
            case "application/octet-stream":
                return read_raw(question.body, self._input)
            case _:
                raise _unsupported(question.headers.content_type, expected=f"one of {JSON}, {CSV}, {NPY}, {RAW}")

    def _choose_writer(self, accept: bytes) -> Callable[[Outputs], Answer]:
        """Take the media type that `Accept` likes best, of those that there are; the first of equals; else JSON."""
        writers = {JSON: self._write_json, CSV: self._write_csv, NPY: self._write_npy}
        ranges = accept.split(b",") if accept else []
        known = [each for each in ranges if _take_media_type(each) in writers and _read_quality(each) > 0]
        return writers[_take_media_type(max(known, key=_read_quality))] if known else self._write_json

    def _write_json(self, outputs: Outputs) -> Answer:
        return Answer(200, b'{"predictions":' + write_rows(outputs, self._specs) + b"}")

    def _write_csv(self, outputs: Outputs) -> Answer:
        """Write a line of scores for each instance."""
        refuse_not_finite(outputs[:1], self._specs[:1])
        rows = orjson.dumps(outputs[0].reshape(len(outputs[0]), -1), option=orjson.OPT_SERIALIZE_NUMPY)
        return Answer(200, rows[2:-2].replace(b"],[", b"\n") + b"\n", content_type=CSV.encode())

    def _write_npy(self, outputs: Outputs) -> Answer:
        refuse_not_finite(outputs[:1], self._specs[:1])
        file = io.BytesIO()
        np.lib.format.write_array(file, outputs[0], allow_pickle=False)
        return Answer(200, file.getvalue(), content_type=NPY.encode())


def _is_open_inference(document: Document) -> bool:
    """Tell its list of tensors from the list of instances that may stand behind the same key."""
    inputs = document.get("inputs")
    first = inputs[0] if isinstance(inputs, list) and inputs else None
    return isinstance(first, dict) and first.keys() >= OPEN_INFERENCE_KEYS


def _check_params(params: object) -> None:
    """Let `params` stand there with nothing in it, as MLflow's clients send it: the models take none."""
    if params is not None and params != {}:
        got = describe(params)
        raise RequestInvalid(
            f"params: the model takes none; expected no such key, or an empty object, got {got}",
            field="params",
            expected="nothing, or an empty object",
            got=got,
        )


def _take_media_type(header: bytes) -> str:
    return header.decode("latin-1").partition(";")[0].strip().lower()


def _read_quality(media_range: bytes) -> float:
    """Read how much a part of `Accept` is wanted, by its `q`, from 0 to 1; what is none counts as 1."""
    for parameter in media_range.split(b";")[1:]:
        name, _, value = parameter.partition(b"=")
        if name.strip().lower() == b"q" and QUALITY.fullmatch(value.strip()):
            return float(value)
    return 1.0


def _check_charset(content_type: bytes) -> None:
    """Refuse a text that is not UTF-8; of other parameters, such as `header=present`, the body decides."""
    for parameter in content_type.decode("latin-1").lower().split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(' "') not in {"utf-8", "utf8", "us-ascii"}:
            raise _unsupported(content_type, expected="charset=utf-8")


def _unsupported(content_type: bytes, *, expected: str) -> MediaTypeUnsupported:
    shown = content_type.decode("latin-1")[:80]
    return MediaTypeUnsupported(
        f"content-type: expected {expected}, got {shown!r}", field="content-type", expected=expected, got=shown
    )
