"""Our own simple contract, without any transport: a body in, an answer out.

    {"instance": [0.0, 0.5, …]}
    →  {"prediction": {"label": "7", "scores": [0.01, …]}, "model": {"name": "digits", "version": "1"}}

Scores stand in the order of the labels, each as the shortest text that reads back to the same bits. Whoever carries
bytes (ASGI in `hot_path.py`, or a protocol class below it) calls `Endpoint.answer` and sends what it returns.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from service.errors import FoldserveError, MediaTypeUnsupported
from service.predictor import Prediction
from service.protocols.answer import Answer
from service.protocols.http_errors import answer_error
from service.repository import ServedModel

USUAL_MEDIA_TYPES = frozenset({b"application/json", b""})
USUAL_ENCODINGS = frozenset({b"", b"identity"})


class Endpoint:
    """Answers for one model."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self._decode = model.predictor.reader.decode
        self._predict = model.predictor.predict
        labels = model.predictor.signature.labels or range(model.predictor.signature.outputs[0].shape[0])
        self._heads = [b'{"prediction":{"label":' + msgspec.json.encode(label) + b',"scores":' for label in labels]
        named = msgspec.json.encode({"name": model.name, "version": model.version})
        self._tail = b'},"model":' + named + b"}"

    def answer(self, body: bytes, content_type: bytes = b"", content_encoding: bytes = b"") -> Answer:
        """Answer one request; every mistake and every failure becomes an answer too."""
        try:
            check_media_type(content_type, content_encoding)
            return Answer(200, self._encode(self._predict(self._decode(body))))
        except FoldserveError as err:
            return answer_error(err)

    def _encode(self, prediction: Prediction) -> bytes:
        scores = orjson.dumps(prediction.scores, option=orjson.OPT_SERIALIZE_NUMPY)
        return self._heads[prediction.index] + scores + self._tail


def encode_request(request: dict[str, Any]) -> bytes:
    """Write a request's body as a client would."""
    return msgspec.json.encode(request)


def check_media_type(content_type: bytes, content_encoding: bytes) -> None:
    """Refuse what is not plain JSON in UTF-8. No content type at all is taken as JSON.

    Raises:
        MediaTypeUnsupported: and says which header is wrong.
    """
    if content_type not in USUAL_MEDIA_TYPES and not _is_json(content_type.decode("latin-1").lower()):
        raise _unsupported("content-type", expected="application/json", got=content_type)
    if content_encoding not in USUAL_ENCODINGS and content_encoding.strip().lower() not in USUAL_ENCODINGS:
        raise _unsupported("content-encoding", expected="no compression", got=content_encoding)


def _is_json(content_type: str) -> bool:
    media_type, *parameters = (part.strip() for part in content_type.split(";"))
    return media_type in {"application/json", ""} and all(map(_is_harmless, parameters))


def _is_harmless(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() != "charset" or value.strip(' "') in {"utf-8", "utf8"}


def _unsupported(header: str, *, expected: str, got: bytes) -> MediaTypeUnsupported:
    shown = got.decode("latin-1")[:80]
    return MediaTypeUnsupported(
        f"{header}: expected {expected}, got {shown!r}", field=header, expected=expected, got=shown
    )
