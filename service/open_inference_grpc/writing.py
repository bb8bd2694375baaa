"""Outputs into a ModelInferResponse, always as raw bytes: Triton's clients read nothing else."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.open_inference_grpc.messages import message_type
from service.predictor import refuse_not_finite
from service.protocols.answer import Answer
from service.protocols.contract import Outputs
from service.protocols.open_inference.asking import Asked, WantedOutput
from service.protocols.open_inference.datatypes import DATATYPE_OF
from service.protocols.open_inference.writing import classify
from service.repository import ServedModel

MEDIA_TYPE = b"application/grpc"


class ResponseWriter:
    """Writes the answers of one model."""

    def __init__(self, model: ServedModel) -> None:
        signature = model.predictor.signature
        self._specs = signature.outputs
        self._labels = signature.labels
        self._response = message_type("inference.ModelInferResponse")
        self._model = {"model_name": model.name, "model_version": model.version or ""}

    def write(self, asked: Asked, outputs: Outputs) -> Answer:
        """Write the outputs that are wanted.

        Raises:
            InstanceInvalid: an output is not finite.
        """
        response = self._response(**self._model, id=asked.id or "")
        for wanted in asked.outputs:
            self._add(response, wanted, outputs[wanted.place])
        return Answer(200, response.SerializeToString(), content_type=MEDIA_TYPE)

    def _add(self, response: Any, wanted: WantedOutput, output: NDArray[Any]) -> None:
        _refuse_not_finite(output)
        spec = self._specs[wanted.place]
        if not wanted.num_classes:
            response.outputs.add(name=spec.name, datatype=DATATYPE_OF[spec.dtype], shape=output.shape)
            response.raw_output_contents.append(output.tobytes())
            return
        classes = classify(output, wanted.num_classes, () if wanted.place else self._labels)
        response.outputs.add(name=spec.name, datatype="BYTES", shape=[len(classes), len(classes[0])])
        response.raw_output_contents.append(_join(text for row in classes for text in row))


def _join(texts: Iterable[str]) -> bytes:
    """Put texts one behind the other, each with its length in front."""
    encoded = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def _refuse_not_finite(output: NDArray[Any]) -> None:
    if not np.isfinite(output).all():
        for row in output.reshape(len(output), -1):
            refuse_not_finite(row)
