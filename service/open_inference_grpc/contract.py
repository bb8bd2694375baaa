"""ModelInfer's messages, for one version of one model: a ModelInferRequest in, a ModelInferResponse out.

A refusal is the JSON that it is over HTTP; whoever carries it makes gRPC's status of it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from service.errors import FoldserveError, RequestError
from service.open_inference_grpc.messages import message_type, parse
from service.open_inference_grpc.reading import read_request
from service.open_inference_grpc.tensors import TensorReader
from service.open_inference_grpc.writing import ResponseWriter
from service.protocols.answer import Answer
from service.protocols.contract import Question, Work
from service.protocols.http_errors import STATUS_ELSEWHERE, answer_error
from service.repository import ServedModel

MAX_QUICK_BYTES = 64 * 1024  # a message of 2 bytes a tensor takes some milliseconds even so


class OpenInferenceGrpc:
    """Reads and answers for one model; see `service.protocols.contract.Contract`."""

    def __init__(self, model: ServedModel) -> None:
        self._signature = model.predictor.signature
        self._request: Any = message_type("inference.ModelInferRequest")
        self._tensors = TensorReader(self._signature.input)
        self._writer = ResponseWriter(model)

    def try_read(self, question: Question) -> Work | None:
        """Read a good request that is not long; None for all others."""
        if len(question.body) > MAX_QUICK_BYTES:
            return None
        try:
            return self.read(question)
        except RequestError:
            return None

    def read(self, question: Question) -> Work:
        """Read any request.

        Raises:
            RequestError: it can not be answered; `field`, `expected` and `got` say where and why.
        """
        request = parse(self._request, question.body)
        asked = read_request(request, self._signature)
        instances = self._tensors.read(request, asked.num_instances)
        return Work(instances, partial(self._writer.write, asked), asked.timeout_seconds)

    def refuse(self, error: FoldserveError) -> Answer:
        """Answer with an error."""
        return answer_error(error, STATUS_ELSEWHERE)
