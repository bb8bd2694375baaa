"""How a request brings a picture: the three ways that our own contract knows, and their schema for OpenAPI.

    application/json       {"image": {"b64": "iVBORw0…"}}: the file in base64 of the usual alphabet, padded
    multipart/form-data    one part, a file with the name `image`
    image/png, …           the file itself

The file goes as it is: PNG, JPEG, WebP or BMP. What a picture has to be, the bundle says (`bundle.ImageSpec`).
"""

from __future__ import annotations

import binascii
import functools
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from service.bundle import ImageSpec, Signature
from service.errors import BodyMalformed, InstanceInvalid, MediaTypeUnsupported, RequestError
from service.images import decode_image
from service.json_text import JsonObject, read_json
from service.protocols.contract import Question
from service.wording import describe, quote, shorten

if TYPE_CHECKING:
    from types import ModuleType

    from python_multipart.multipart import Field, File

# As in `predict.py`: the last is what curl says where it is told nothing.
JSON = ("application/json", "", "application/x-www-form-urlencoded")
MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp", "image/bmp")
FORM = "multipart/form-data"
FIELD = "image"
EXPECTED_JSON = '{"image": {"b64": …}}'
EXPECTED_FORM = f"one part, a file with the name {FIELD!r}"
NUM_COLONS = 2  # of the JSON form; base64 has none


class _Encoded(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    b64: str


class _Document(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    image: _Encoded


def read_image(question: Question, signature: Signature) -> bytes | None:
    """Read a request that brings a picture: give the bytes of the instance; None if it brings none.

    Raises:
        RequestError: it should bring one and does not, the picture is of the wrong kind, or the model takes none.
    """
    encoded = read_image_request(question.body, question.headers.content_type)
    if encoded is None:
        return None
    if signature.image is None:
        raise _without_pictures(_media_type(question.headers.content_type))
    return decode_image(encoded, signature.image, signature.input)


def read_image_request(body: bytes, content_type: bytes) -> bytes | None:
    """Take the picture's file out of a request, not decoded; None if the request is not one with a picture.

    Raises:
        RequestError: it should be one, and is not; `field`, `expected` and `got` say where and why.
    """
    media_type = _media_type(content_type)
    if media_type == FORM:
        return _read_form(body, content_type)
    if media_type in MEDIA_TYPES:
        return body
    if media_type.startswith("image/"):
        raise _unsupported(media_type, ", ".join(MEDIA_TYPES))
    return _read_json(body) if media_type in JSON else None


def _media_type(content_type: bytes) -> str:
    return content_type.partition(b";")[0].decode("latin-1").strip().lower()


# --- JSON ------------------------------------------------------------------------------------------------------------


def _read_json(body: bytes) -> bytes | None:
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_json_thoroughly(body)
    return _read_base64(document.image.b64) if body.count(b":") == NUM_COLONS else _read_json_thoroughly(body)


def _read_json_thoroughly(body: bytes) -> bytes | None:
    """Say what is wrong with a body that means to bring a picture; what does not is for others to read."""
    if b'"image"' not in body:
        return None
    document = read_json(body, EXPECTED_JSON)
    if not isinstance(document, JsonObject) or all(name != FIELD for name, _ in document.members):
        return None
    return _read_base64(_only_member(_only_member(document, FIELD, path=""), "b64", path=FIELD))


def _only_member(value: Any, name: str, *, path: str) -> Any:
    """Give the value of an object's only member."""
    expected = f"an object with the key {name!r} and nothing beside it"
    if not isinstance(value, JsonObject):
        raise _wrong(path, expected, describe(value))
    names = [found for found, _ in value.members]
    if names != [name]:
        other = next((found for found in names if found != name), None)
        raise _wrong(path, expected, _describe_names(names, other))
    return value.members[0][1]


def _describe_names(names: list[str], other: str | None) -> str:
    if other is not None:
        return f"the key {quote(other)}"
    return f"it {len(names)} times" if names else "an empty object"


def _read_base64(text: Any) -> bytes:
    path, expected = f"{FIELD}.b64", "the picture's file in base64: letters, digits, + and /, padded with ="
    if not isinstance(text, str):
        raise _wrong(path, expected, describe(text))
    if text.startswith("data:"):
        raise _wrong(path, expected, "a data URL: send what stands behind its comma")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as err:  # binascii's own is one; so is what it says of letters beyond ASCII
        raise _wrong(path, expected, describe(text)) from err


# --- multipart -------------------------------------------------------------------------------------------------------


def _read_form(body: bytes, content_type: bytes) -> bytes:
    """Take the one file out of a form. All of it stays in memory: the body's length is limited already."""
    reader, form = _form_reader(), _Form()
    boundary = reader.parse_options_header(content_type)[1].get(b"boundary")
    config = {"MAX_MEMORY_FILE_SIZE": len(body), "UPLOAD_ERROR_ON_BAD_CTE": True}
    try:
        reader.FormParser(FORM, form.on_field, form.on_file, form.on_end, boundary=boundary, config=config).write(body)
    except reader.FormParserError as err:
        message = f"the body is not {FORM}: {shorten(str(err))}"
        raise BodyMalformed(message, field=FIELD, expected=EXPECTED_FORM) from err
    return form.only_file()


@functools.cache
def _form_reader() -> ModuleType:
    """Import the reader of forms; it would log each mistake of a client, which is told to the client instead."""
    from python_multipart import multipart

    logging.getLogger(multipart.__name__).setLevel(logging.CRITICAL)
    return multipart


class _Form:
    """What a form has held so far: nothing, or the one file that it may hold."""

    def __init__(self) -> None:
        self._file: bytes | None = None
        self._is_whole = False

    def on_field(self, field: Field) -> None:
        """Refuse a part that is no file."""
        raise _wrong(FIELD, EXPECTED_FORM, f"the part {_name(field)}, which has no filename")

    def on_file(self, file: File) -> None:
        """Take a file, if it is the one: a second one is refused before more of them fill the memory."""
        if file.field_name != FIELD.encode():
            raise _wrong(FIELD, EXPECTED_FORM, f"a file with the name {_name(file)}")
        if self._file is not None:
            raise _wrong(FIELD, EXPECTED_FORM, "more than one")
        file.file_object.seek(0)
        self._file = file.file_object.read()

    def on_end(self) -> None:
        """Note that the form was closed."""
        self._is_whole = True

    def only_file(self) -> bytes:
        """Give the file.

        Raises:
            RequestError: there is none, or the form breaks off.
        """
        if not self._is_whole:
            raise BodyMalformed(
                f"the body breaks off before the end of {FORM}", field=FIELD, expected=EXPECTED_FORM, got="a part of it"
            )
        if self._file is None:
            raise _wrong(FIELD, EXPECTED_FORM, "none")
        return self._file


def _name(part: Field | File) -> str:
    return quote((part.field_name or b"").decode("utf-8", "replace"))


# --- refusals --------------------------------------------------------------------------------------------------------


def _wrong(path: str, expected: str, got: str) -> InstanceInvalid:
    message = f"{path or 'the body'}: expected {expected}, got {got}"
    return InstanceInvalid(message, field=path, expected=expected, got=got)


def _without_pictures(media_type: str) -> RequestError:
    """Say that the model takes numbers: its bundle does not tell how a picture becomes its input."""
    if media_type in JSON:
        return _wrong(FIELD, '{"instance": …}', "a picture, and this model's bundle does not say how to decode one")
    return _unsupported(media_type, "application/json, as this model's bundle does not say how to decode a picture")


def _unsupported(media_type: str, expected: str) -> MediaTypeUnsupported:
    got = shorten(media_type)
    message = f"content-type: expected {expected}, got {got!r}"
    return MediaTypeUnsupported(message, field="content-type", expected=expected, got=got)


# --- OpenAPI ---------------------------------------------------------------------------------------------------------


def image_schema(spec: ImageSpec) -> dict[str, Any]:
    """Give the JSON schema of a body that brings a picture."""
    encoded = {"type": "string", "contentEncoding": "base64", "description": describe_picture(spec)}
    return _object(FIELD, _object("b64", encoded))


def image_content(spec: ImageSpec) -> dict[str, Any]:
    """Give the media types that a picture comes in beside JSON, as OpenAPI's `content` has them."""
    file = {"type": "string", "format": "binary", "description": describe_picture(spec)}
    return {FORM: {"schema": _object(FIELD, file)}, **{name: {"schema": file} for name in MEDIA_TYPES}}


def describe_picture(spec: ImageSpec) -> str:
    """Say in one line what picture the model takes."""
    colours = {"L": "grayscale", "RGB": "colour (RGB)"}[spec.mode]
    return f"The file of a picture of {spec.width}×{spec.height} pixels in {colours}: PNG, JPEG, WebP or BMP"


def _object(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [name], "properties": {name: schema}, "additionalProperties": False}
