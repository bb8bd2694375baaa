"""Our own simple contract, without any transport: a body in, an answer out.

    {"instance": [0.0, 0.5, …]}
    →  {"prediction": {"label": "7", "scores": [0.01, …]}, "model": {"name": "digits", "version": "1"}}

Scores stand in the order of the labels, each as the shortest text that reads back to the same bits. A lane (`lane.py`)
takes the two steps by themselves: `try_read` each request where it arrives, then `answer_all` that have been read. A
thread calls `answer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from service.errors import FoldserveError, MediaTypeUnsupported, RequestError
from service.predictor import Array, refuse_not_finite
from service.protocols.answer import Answer
from service.protocols.http_errors import answer_error
from service.repository import ServedModel

USUAL_MEDIA_TYPES = frozenset({b"application/json", b""})
USUAL_ENCODINGS = frozenset({b"", b"identity"})
NOT_FINITE = b"null"  # so orjson writes NaN and the infinities, and nothing else in an array of floats


class Endpoint:
    """Answers for one model."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self._try_pack = model.predictor.reader.try_pack
        self._compute = model.batches.compute
        labels = model.predictor.signature.labels or range(model.predictor.signature.outputs[0].shape[0])
        self._heads = [b'{"prediction":{"label":' + msgspec.json.encode(label) + b',"scores":[' for label in labels]
        named = msgspec.json.encode({"name": model.name, "version": model.version})
        self._tail = b']},"model":' + named + b"}"

    def answer(self, body: bytes, content_type: bytes = b"", content_encoding: bytes = b"") -> Answer:
        """Answer one request; every mistake and every failure becomes an answer too."""
        try:
            return self._answer_few([self.read(body, content_type, content_encoding)])[0]
        except FoldserveError as err:
            return answer_error(err)

    def read(self, body: bytes, content_type: bytes = b"", content_encoding: bytes = b"") -> bytes:
        """Read one request: give its instance's bytes, for `answer_all`.

        Raises:
            RequestError: the request can not be answered.
        """
        packed = self.try_read(body, content_type, content_encoding)
        if packed is None:
            raise self.explain(body)
        return packed

    def try_read(self, body: bytes, content_type: bytes, content_encoding: bytes) -> bytes | None:
        """Read one request; None if its body is no instance. Why is for `explain`, which takes long for a long body.

        Raises:
            MediaTypeUnsupported: and says which header is wrong.
        """
        check_media_type(content_type, content_encoding)
        return self._try_pack(body)

    def explain(self, body: bytes) -> RequestError:
        """Say what is wrong with a body that could not be read. Any thread may ask."""
        return self.model.predictor.reader.explain(body)

    def answer_all(self, packed: Sequence[bytes]) -> list[Answer]:
        """Answer requests that were read: each as `answer` would, but together, in as few runs as can be."""
        largest = self.model.batches.largest
        if 0 < len(packed) <= largest:
            return self._answer_few(packed)
        parts = (packed[start : start + largest] for start in range(0, len(packed), largest))
        return [answer for part in parts for answer in self._answer_few(part)]

    def _answer_few(self, packed: Sequence[bytes]) -> list[Answer]:
        """Answer what fits one run. If that fails, each is asked alone: an instance has nothing to do with the rest."""
        try:
            scores = self._compute(packed)
        except FoldserveError as err:
            return [self._answer_few([one])[0] for one in packed] if len(packed) > 1 else [answer_error(err)]
        rows = orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY)
        if NOT_FINITE not in rows:
            return self._encode(scores, rows)
        return [self._encode_or_refuse(scores[place : place + 1]) for place in range(len(packed))]

    def _encode_or_refuse(self, scores: Array) -> Answer:
        try:
            refuse_not_finite(scores[0])
        except FoldserveError as err:
            return answer_error(err)
        return self._encode(scores, orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY))[0]

    def _encode(self, scores: Array, rows: bytes) -> list[Answer]:
        """Write the answers for scores [instances, labels], which as JSON are `rows`: cut where a row ends."""
        heads, tail = self._heads, self._tail
        pairs = zip(scores.argmax(axis=1).tolist(), rows[2:-2].split(b"],["), strict=True)
        return [Answer(200, heads[index] + row + tail) for index, row in pairs]


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
