"""The Open Inference Protocol's requests and answers, for one version of one model.

    {"id":"42","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[0.1,0.2,0.3,0.4]}]}
    →  {"model_name":"digits","model_version":"1","id":"42",
        "outputs":[{"name":"scores","datatype":"FP32","shape":[1,2],"data":[1.25,-0.5]}]}

Tensors may stand as bytes behind the JSON. The quickest request has no JSON: one instance's bytes, and a header
`Inference-Header-Content-Length: 0`.
"""

from __future__ import annotations

from functools import partial

import msgspec

from service.errors import BodyMalformed, FoldserveError, RequestError
from service.json_text import MAX_THOROUGH_BYTES, refuse_crowded
from service.protocols.answer import Answer
from service.protocols.contract import MAX_INLINE_BYTES, Question, Work
from service.protocols.http_errors import STATUS_ELSEWHERE, answer_error
from service.protocols.open_inference.asking import WantedOutput, read_asked
from service.protocols.open_inference.document import Document, plan_quick_reading, read_document
from service.protocols.open_inference.familiar import Familiar
from service.protocols.open_inference.framing import LENGTH_HEADER, OCTETS, Frame, read_frame
from service.protocols.open_inference.tensors import TensorReader, refuse_rest
from service.protocols.open_inference.writing import AnswerWriter, Form
from service.repository import ServedModel

# What takes longer than a millisecond to read is read in a thread.
MAX_QUICK_JSON_BYTES = 64 * 1024
MAX_QUICK_BYTES = 1024 * 1024


class OpenInference:
    """Reads and answers for one model; see `service.protocols.contract.Contract`."""

    def __init__(self, model: ServedModel) -> None:
        self._signature = model.predictor.signature
        self._tensors = TensorReader(self._signature.input)
        self._try_document = plan_quick_reading()
        self._familiar = Familiar(self._signature, model.predictor.reader)
        self._writer = AnswerWriter(model)
        places = range(len(self._signature.outputs))
        self._all_as_bytes = tuple(WantedOutput(place, is_binary=True) for place in places)

    def try_read(self, question: Question) -> Work | None:
        """Read a good and usual request; None for all others."""
        try:
            frame = read_frame(question)
            if frame.json_length > MAX_QUICK_JSON_BYTES or len(frame.body) > MAX_QUICK_BYTES:
                return None
            return self._try_frame(frame, is_short=frame.json_length <= MAX_INLINE_BYTES)
        except RequestError:
            return None

    def read(self, question: Question) -> Work:
        """Read any request.

        Raises:
            RequestError: it can not be answered; `field`, `expected` and `got` say where and why.
        """
        frame = read_frame(question)
        if frame.json_length > MAX_THOROUGH_BYTES:
            refuse_crowded(_text_of(frame))
        return self._try_quickly(frame) or self._read_thoroughly(frame, question)

    def refuse(self, error: FoldserveError) -> Answer:
        """Answer with an error."""
        return answer_error(error, STATUS_ELSEWHERE)

    def _try_quickly(self, frame: Frame) -> Work | None:
        try:
            return self._try_frame(frame)
        except RequestError:
            return None

    def _try_frame(self, frame: Frame, *, is_short: bool = True) -> Work | None:
        """Read a usual request; of one that is not short, no numbers that have to be read value by value."""
        if frame.is_raw:
            return self._read_raw(frame)
        familiar = None if frame.is_binary else self._familiar.try_read(frame.body)
        if familiar is not None:
            return familiar
        document = self._try_document(_text_of(frame))
        if document is None:
            return None
        try:
            return self._settle(document, frame, is_quick=not is_short)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def _read_thoroughly(self, frame: Frame, question: Question) -> Work:
        if frame.is_raw:
            return self._read_raw(frame)
        try:
            return self._settle(read_document(_text_of(frame)), frame)
        except BodyMalformed as err:
            _hint_at_length(err, question)
            raise

    def _read_raw(self, frame: Frame) -> Work:
        instances = self._tensors.read_raw(frame.body)
        if not frame.cloud_type:
            return Work(instances, self._writer.write_raw)
        return Work(instances, partial(self._writer.write, Form(self._all_as_bytes, None, frame.cloud_type)))

    def _settle(self, document: Document, frame: Frame, *, is_quick: bool = False) -> Work:
        asked = read_asked(document, self._signature)
        if asked.binary_size is None:
            refuse_rest(frame)
            instances = self._tensors.read_data(document.inputs[0].data, asked.num_instances, is_quick=is_quick)
        else:
            instances = self._tensors.read_bytes(frame, asked.num_instances, asked.binary_size)
        form = Form(asked.outputs, asked.id, frame.cloud_type)
        work = Work(instances, partial(self._writer.write, form), asked.timeout_seconds)
        if len(instances) == 1 and asked.id is None and not frame.is_binary:
            self._familiar.remember(frame.body, document.inputs[0].data, work)
        return work


def _text_of(frame: Frame) -> bytes:
    return frame.body if not frame.num_bytes_after else frame.body[: frame.json_length]


def _hint_at_length(err: BodyMalformed, question: Question) -> None:
    """Say what a binary body needs, where it was read as JSON for want of it."""
    headers = question.headers
    if headers.content_type == OCTETS and not headers.header_length:
        err.args = (f"{err}; a body with bytes in it needs the header {LENGTH_HEADER}",)
