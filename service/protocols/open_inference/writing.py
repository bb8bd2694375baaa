"""Outputs into an answer: JSON, with the bytes of binary outputs behind it.

Numbers as JSON are the shortest text that reads back to the same bits; tensors are flat, in row-major order. All that
does not depend on the numbers is written once, when the model is opened.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from service.bundle import TensorSpec
from service.errors import InstanceInvalid
from service.protocols.answer import Answer
from service.protocols.contract import Outputs
from service.protocols.open_inference.asking import WantedOutput
from service.protocols.open_inference.datatypes import DATATYPE_OF
from service.protocols.open_inference.framing import LENGTH_HEADER, OCTETS
from service.repository import ServedModel

Array = NDArray[Any]
NOT_FINITE = b"null"  # so orjson writes NaN and the infinities, and nothing else in an array of numbers


class Form(NamedTuple):
    """How an answer is to look: which outputs it has, the request's id, and the cloud type of the request's `Frame`."""

    outputs: tuple[WantedOutput, ...]
    id: str | None = None
    cloud_type: bytes = b""


class AnswerWriter:
    """Writes the answers of one model."""

    def __init__(self, model: ServedModel) -> None:
        signature = model.predictor.signature
        self._head = _begin(model)
        self._specs = signature.outputs
        self._tensors = [_TensorWriter(spec) for spec in signature.outputs]
        self._labels = signature.labels
        described = b",".join([tensor.describe_bytes(1) for tensor in self._tensors])
        self._raw_text = self._head + b',"outputs":[' + described + b"]}"
        self._raw_headers = ((LENGTH_HEADER.encode(), b"%d" % len(self._raw_text)),)

    def write(self, form: Form, outputs: Outputs) -> Answer:
        """Write the outputs that are wanted.

        Raises:
            InstanceInvalid: an output is not finite.
        """
        texts: list[bytes] = []
        blobs: list[bytes] = []
        for output in form.outputs:
            text, blob = self._write_output(output, outputs[output.place])
            texts.append(text)
            blobs.append(blob)
        id_text = b"" if form.id is None else b',"id":' + msgspec.json.encode(form.id)
        text = self._head + id_text + b',"outputs":[' + b",".join(texts) + b"]}"
        if not any(output.is_binary for output in form.outputs):
            return Answer(200, text)
        return _frame(text, b"".join(blobs), form.cloud_type)

    def write_raw(self, outputs: Outputs) -> Answer:
        """Write the outputs of one instance as bytes, all of them: the JSON about them is always the same."""
        for tensor, output in zip(self._tensors, outputs, strict=True):
            tensor.refuse_not_finite(output)
        body = self._raw_text + b"".join([output.tobytes() for output in outputs])
        return Answer(200, body, "", self._raw_headers, OCTETS)

    def _write_output(self, wanted: WantedOutput, output: Array) -> tuple[bytes, bytes]:
        tensor = self._tensors[wanted.place]
        if wanted.num_classes:
            tensor.refuse_not_finite(output)
            labels = () if wanted.place else self._labels
            return _write_classes(tensor.name, classify(output, wanted.num_classes, labels), wanted)
        if wanted.is_binary:
            return tensor.write_bytes(output)
        return tensor.write_json(output), b""


class _TensorWriter:
    """Writes one of the outputs."""

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        sizes = "".join(f",{size}" for size in spec.shape)
        self._num_bytes = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        datatype = DATATYPE_OF[spec.dtype].encode()
        self._head = b'{"name":%s,"datatype":"%s","shape":[' % (msgspec.json.encode(spec.name), datatype)
        self._data = f'{sizes}],"data":'.encode()
        self._size = f'{sizes}],"parameters":{{"binary_data_size":'.encode()

    def write_json(self, output: Array) -> bytes:
        """Write an output [instances, …] with its numbers."""
        numbers = orjson.dumps(output.reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)
        if NOT_FINITE in numbers:
            self.refuse_not_finite(output)
        return b"%s%d%s%s}" % (self._head, len(output), self._data, numbers)

    def write_bytes(self, output: Array) -> tuple[bytes, bytes]:
        """Write an output [instances, …], and apart from it its numbers."""
        self.refuse_not_finite(output)
        return self.describe_bytes(len(output)), output.tobytes()

    def describe_bytes(self, num_instances: int) -> bytes:
        """Write what is said of an output whose numbers stand apart."""
        return b"%s%d%s%d}}" % (self._head, num_instances, self._size, num_instances * self._num_bytes)

    def refuse_not_finite(self, output: Array) -> None:
        """Refuse instances for which the output is not finite all over."""
        if np.vdot(output, output) < np.inf:  # quickly; what is finite may overflow here, and is looked at once more
            return
        finite = np.isfinite(output)
        if finite.all():
            return
        instance, place = divmod(int(finite.argmin()), output[0].size)
        got = f"{self.name!r}[{place}] is {output.reshape(-1)[finite.argmin()]}"
        raise InstanceInvalid(
            f"the network overflows on instance {instance}: {got}; are the values in the range, and of the scale, that "
            "it was trained on?",
            field="inputs[0]",
            expected="instances with finite outputs",
            got=got,
        )


def classify(output: Array, num_classes: int, labels: tuple[str, ...]) -> list[list[str]]:
    """Give of each instance the largest values, each as `value:place:label`; no label where there are none.

    Of equal values the first comes first. There are as many as the output has values, or `num_classes` if that is less.
    """
    rows = output.reshape(len(output), -1)
    # Backwards and back: what sorts stably in rising order is to be read in falling order.
    order = rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :num_classes]
    return [[_name_class(row, place, labels) for place in places] for row, places in zip(rows, order, strict=True)]


def _name_class(row: Array, place: int, labels: tuple[str, ...]) -> str:
    return f"{row[place]!s}:{place}" + (f":{labels[place]}" if labels else "")


def _write_classes(name: str, classes: list[list[str]], wanted: WantedOutput) -> tuple[bytes, bytes]:
    texts = [text for row in classes for text in row]
    shape = [len(classes), len(classes[0])]
    described = {"name": name, "datatype": "BYTES", "shape": shape}
    if not wanted.is_binary:
        return msgspec.json.encode({**described, "data": texts}), b""
    encoded = [text.encode() for text in texts]
    blob = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return msgspec.json.encode({**described, "parameters": {"binary_data_size": len(blob)}}), blob


def _begin(model: ServedModel) -> bytes:
    """Write how every answer begins: with the model, and its version if it has one."""
    named = {"model_name": model.name, "model_version": model.version}
    return msgspec.json.encode({key: value for key, value in named.items() if value is not None})[:-1]


def _frame(text: bytes, blob: bytes, cloud_type: bytes) -> Answer:
    """Put JSON and bytes together, and say where the one ends: in a header, or in the content type."""
    body, length = text + blob, b"%d" % len(text)
    if cloud_type:
        return Answer(200, body, content_type=cloud_type + b";json-header-size=" + length)
    return Answer(200, body, headers=((LENGTH_HEADER.encode(), length),), content_type=OCTETS)
