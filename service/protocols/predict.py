"""Our own simple contract, without any transport: one instance in, one prediction out.

    {"instance": [0.0, 0.5, …]}
    →  {"prediction": {"label": "7", "scores": [0.01, …]}, "model": {"name": "digits", "version": "1"}}

Scores stand in the order of the labels, each as the shortest text that reads back to the same bits. With `?top_k=3` the
prediction has the three `labels` with the largest scores, largest first, and these `scores`.
"""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import numpy as np
import orjson

from service.bundle import Signature
from service.errors import FoldserveError, MediaTypeUnsupported, RequestInvalid
from service.predictor import Array, refuse_not_finite
from service.protocols.answer import Answer
from service.protocols.contract import Outputs, Question, Work
from service.protocols.http_errors import answer_error
from service.protocols.image_requests import read_image
from service.repository import ServedModel

USUAL_MEDIA_TYPES = frozenset({b"application/json", b""})
MAX_NUMBER_BYTES = 32  # with a comma, brackets and spaces
MAX_SPARE_BYTES = 2 * 1024
NOT_FINITE = b"null"  # so orjson writes NaN and the infinities, and nothing else in an array of floats


class Endpoint:
    """Our contract for one model version."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self._try_pack = model.predictor.reader.try_pack
        self._usual_bytes = _usual_bytes(model.predictor.signature)
        labels = model.predictor.signature.labels or range(model.predictor.signature.outputs[0].shape[0])
        self._labels = [msgspec.json.encode(label) for label in labels]
        self._heads = [b'{"prediction":{"label":' + label + b',"scores":[' for label in self._labels]
        named = msgspec.json.encode({"name": model.name, "version": model.version})
        self._tail = b']},"model":' + named + b"}"
        self._together = partial(_write_together, self._heads, self._tail)

    def try_read(self, question: Question) -> Work | None:
        """Read a good request of the usual kind."""
        body, headers, query = question
        if query or headers.content_type not in USUAL_MEDIA_TYPES or len(body) > self._usual_bytes:
            return None
        packed = self._try_pack(body)
        return None if packed is None else Work((packed,), self._write, None, self._together)

    def read(self, question: Question) -> Work:
        """Read any request, or say what is wrong with it."""
        write = self._plan_writing(question.query)
        picture = read_image(question, self.model.predictor.signature)
        if picture is not None:
            return Work((picture,), write)
        check_media_type(question.headers.content_type)
        return Work((self.model.predictor.reader.pack(question.body),), write)

    def refuse(self, error: FoldserveError) -> Answer:
        """Say why there is no prediction."""
        return answer_error(error)

    def _plan_writing(self, query: bytes) -> Callable[[Outputs], Answer]:
        if not query:
            return self._write
        return partial(self._write_top, read_top_k(query, most=len(self._labels)))

    def _write(self, outputs: Outputs) -> Answer:
        """Write the answer of one instance, whose scores are [1, labels]."""
        scores = outputs[0]
        index = int(scores.argmax())
        return Answer(200, self._heads[index] + _write_row(scores) + self._tail)

    def _write_top(self, count: int, outputs: Outputs) -> Answer:
        scores = outputs[0]
        refuse_not_finite(scores[0])
        places = np.argsort(-scores[0], kind="stable")[:count]
        labels = b",".join(self._labels[place] for place in places)
        head = b'{"prediction":{"label":' + self._labels[places[0]] + b',"labels":[' + labels + b'],"scores":['
        return Answer(200, head + _write_row(scores[:, places]) + self._tail)


def _write_together(heads: list[bytes], tail: bytes, outputs: Outputs) -> list[bytes]:
    """Write the answers for scores [instances, labels]: as JSON in one go, cut where a row ends.

    Raises:
        InstanceInvalid: a score is not finite.
    """
    scores = outputs[0]
    rows = orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY)
    if NOT_FINITE in rows:
        refuse_not_finite(scores.reshape(-1))
    pairs = zip(scores.argmax(axis=1).tolist(), rows[2:-2].split(b"],["), strict=True)
    return [heads[index] + row + tail for index, row in pairs]


def _usual_bytes(signature: Signature) -> int:
    """Give how long a body is at most that is written as usual; a longer one is not to hold up the event loop."""
    names = [text for feature in signature.features for text in (feature.name, *feature.categories)]
    return MAX_SPARE_BYTES + MAX_NUMBER_BYTES * math.prod(signature.input.shape) + sum(map(len, names))


def _write_row(scores: Array) -> bytes:
    """Write the one row of scores [1, labels], without its brackets.

    Raises:
        InstanceInvalid: a score is not finite.
    """
    row = orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY)
    if NOT_FINITE in row:
        refuse_not_finite(scores[0])
    return row[2:-2]


def read_top_k(query: bytes, *, most: int) -> int:
    """Read how many labels are wanted; more than there are is all of them.

    Raises:
        RequestInvalid: the query has something else, or no whole number from 1 on.
    """
    try:
        fields = urllib.parse.parse_qs(
            query.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=8
        )
    except ValueError:
        fields = {}
    values = fields.get("top_k", [])
    if len(fields) == len(values) == 1 and values[0].isascii() and values[0].isdecimal():
        number = values[0].lstrip("0")[:9]
        if number:
            return min(int(number), most)
    shown = query.decode("latin-1")[:80]
    raise RequestInvalid(
        f"the query of the URL: expected top_k=<a whole number from 1 on>, or none; got {shown!r}",
        field="query",
        expected="top_k=<a whole number from 1 on>",
        got=shown,
    )


def encode_request(request: dict[str, Any]) -> bytes:
    """Write a request's body as a client would."""
    return msgspec.json.encode(request)


def check_media_type(content_type: bytes) -> None:
    """Refuse what is not plain JSON in UTF-8. No content type at all is taken as JSON.

    Raises:
        MediaTypeUnsupported: and says which header is wrong.
    """
    if content_type not in USUAL_MEDIA_TYPES and not _is_json(content_type.decode("latin-1").lower()):
        raise _unsupported("content-type", expected="application/json", got=content_type)


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
