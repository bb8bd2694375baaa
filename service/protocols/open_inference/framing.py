"""Where the JSON of a request ends and the bytes of its tensors begin, and who says so.

Usually the header Inference-Header-Content-Length does. SageMaker and Vertex AI let no header of ours through, so there
the content type says it: `application/vnd.sagemaker-triton.binary+json;json-header-size=135`. A length of 0 means that
there is no JSON: the body is the one input's bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from service.errors import MediaTypeUnsupported, RequestInvalid
from service.protocols.answer import JSON
from service.protocols.contract import Question
from service.wording import shorten

OCTETS = b"application/octet-stream"
CLOUD_TYPES = (b"application/vnd.sagemaker-triton.binary+json", b"application/vnd.vertex-ai-triton.binary+json")
USUAL_TYPES = frozenset({JSON, b"", OCTETS})
LENGTH_HEADER = "inference-header-content-length"
MAX_DIGITS = 18


class Frame(NamedTuple):
    """A body in its two parts: JSON up to `json_length`, bytes from there on.

    `is_binary` where a length was given, even one that leaves no bytes. `cloud_type` is the content type that told the
    length, and that tells it in the answer; else empty.
    """

    body: bytes
    json_length: int
    is_binary: bool = False
    cloud_type: bytes = b""

    @property
    def is_raw(self) -> bool:
        """Say if there is no JSON, by the length's word."""
        return self.is_binary and not self.json_length

    @property
    def num_bytes_after(self) -> int:
        """Count the bytes after the JSON."""
        return len(self.body) - self.json_length


def read_frame(question: Question) -> Frame:
    """Find the two parts of a request's body.

    Raises:
        RequestInvalid: the length is none, or is beyond the body.
        MediaTypeUnsupported: the content type is none that the protocol knows.
    """
    body, headers = question.body, question.headers
    content_type, length = headers.content_type, headers.header_length
    if content_type in USUAL_TYPES:
        return _read_binary(body, length) if length else Frame(body, len(body))
    media_type, parameters = _split(content_type)
    if media_type in CLOUD_TYPES:
        size = parameters.get(b"json-header-size", b"")
        if length and length.strip() != size:
            raise _length_invalid("content-type", "the same length as in Inference-Header-Content-Length", size)
        return _read_binary(body, size, media_type)
    if length:
        return _read_binary(body, length)
    _check_json(content_type, media_type, parameters)
    return Frame(body, len(body))


def _read_binary(body: bytes, length: bytes, cloud_type: bytes = b"") -> Frame:
    where = "content-type" if cloud_type else LENGTH_HEADER
    digits = length.strip()
    if not digits.isdigit() or len(digits) > MAX_DIGITS:
        wanted = "json-header-size=N, the length of the JSON in bytes" if cloud_type else "a whole number of bytes"
        raise _length_invalid(where, wanted, length)
    json_length = int(digits)
    if json_length > len(body):
        raise _length_invalid(where, f"at most {len(body)}, the length of the body", digits)
    return Frame(body, json_length, is_binary=True, cloud_type=cloud_type)


def _split(content_type: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    media_type, *parameters = (part.strip() for part in content_type.lower().split(b";"))
    pairs = (parameter.partition(b"=") for parameter in parameters)
    return media_type, {name.strip(): value.strip(b' "') for name, _, value in pairs}


def _check_json(content_type: bytes, media_type: bytes, parameters: dict[bytes, bytes]) -> None:
    if media_type in USUAL_TYPES and parameters.get(b"charset", b"utf-8") in {b"utf-8", b"utf8"}:
        return
    expected = "application/json in UTF-8, or application/octet-stream"
    shown = shorten(content_type.decode("latin-1"))
    raise MediaTypeUnsupported(
        f"content-type: expected {expected}, got {shown}", field="content-type", expected=expected, got=shown
    )


def _length_invalid(where: str, expected: str, got: bytes) -> RequestInvalid:
    shown = shorten(got.decode("latin-1")) or "nothing"
    return RequestInvalid(f"{where}: expected {expected}, got {shown}", field=where, expected=expected, got=shown)
