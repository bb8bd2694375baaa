"""Pictures: what one becomes, what is refused, and the three ways in which a request brings one."""

from __future__ import annotations

import base64
import io
import json
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.bundle import ImageSpec, Signature, TensorSpec, read_bundle
from service.errors import BodyMalformed, InstanceInvalid, ManifestInvalid, MediaTypeUnsupported, RequestError
from service.images import decode_image
from service.instance import InstanceReader
from service.protocols.contract import Headers, Question
from service.protocols.image_requests import image_content, image_schema, read_image, read_image_request
from tests.service.tiny_models import TinyModel, tiny_model, write_tiny_bundle

COLOUR = ImageSpec(mode="RGB", height=3, width=5)
GRAY = ImageSpec(mode="L", height=3, width=5)
MAX_MESSAGE = 400  # characters: a sentence and a few of what was sent, never the whole request
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx\r\n'
DIGIT = ImageSpec(mode="L", height=8, width=8, scale=16 / 255, whole=True)


def _tensor(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="x", dtype=dtype, shape=shape)


def _pixels(spec: ImageSpec, seed: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Random values [H, W] or [H, W, C], as Pillow has them."""
    shape = (spec.height, spec.width) if spec.mode == "L" else (spec.height, spec.width, 3)
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def _encode(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _png(spec: ImageSpec, seed: int = 3) -> bytes:
    return _encode(Image.fromarray(_pixels(spec, seed)))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _bomb(side: int) -> bytes:
    """A square picture of which nearly all is missing."""
    return _png_header(side, side) + _chunk(b"IDAT", zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")


def _png_header(width: int, height: int, *, depth: int = 8, colour: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


# --- what a picture becomes ------------------------------------------------------------------------------------------


def test_colours_come_first_or_last_as_the_layout_says() -> None:
    pixels = _pixels(COLOUR)
    first = decode_image(_png(COLOUR), COLOUR, _tensor(3, 3, 5))
    last = decode_image(_png(COLOUR), replace(COLOUR, layout="HWC"), _tensor(3, 5, 3))
    assert first == np.moveaxis(pixels, 2, 0).astype("<f4").tobytes()
    assert last == pixels.astype("<f4").tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_values_are_mapped_in_double_and_rounded_once(dtype: str) -> None:
    spec = replace(GRAY, scale=1 / 255, offset=-0.5)
    expected = [float(value) * (1 / 255) - 0.5 for value in _pixels(GRAY).ravel()]
    rounded = np.rint(expected) if dtype == "int64" else np.array(expected)
    assert decode_image(_png(GRAY), spec, _tensor(1, 3, 5, dtype=dtype)) == rounded.astype(dtype).tobytes()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 16), min_size=64, max_size=64))
def test_a_digit_as_a_picture_is_bit_for_bit_the_digit_as_numbers(values: list[int]) -> None:
    """Its values are whole, 0..16; the nearest gray of 256 leads back to each."""
    picture = np.rint(np.array(values) * 255 / 16).astype(np.uint8).reshape(8, 8)
    signature = Signature(input=_tensor(1, 8, 8), outputs=(_tensor(10),))
    as_numbers = InstanceReader(signature).pack(json.dumps({"instance": values}).encode())
    assert decode_image(_encode(Image.fromarray(picture)), DIGIT, signature.input) == as_numbers


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_every_format_is_decoded_as_pillow_decodes_it(kind: str) -> None:
    encoded = _encode(Image.fromarray(_pixels(COLOUR)), kind, **({"lossless": True} if kind == "WEBP" else {}))
    channels_last = replace(COLOUR, layout="HWC")
    decoded = np.frombuffer(decode_image(encoded, channels_last, _tensor(*channels_last.shape)), "<f4")
    with Image.open(io.BytesIO(encoded)) as picture:
        assert np.array_equal(decoded.reshape(3, 5, 3), np.asarray(picture))
    if kind != "JPEG":  # the others lose nothing
        assert np.array_equal(decoded, _pixels(COLOUR).ravel())


def test_a_picture_is_not_turned_by_exif() -> None:
    picture = Image.fromarray(_pixels(COLOUR))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn it by 90°
    turned = _encode(picture, exif=exif)
    assert decode_image(turned, COLOUR, _tensor(3, 3, 5)) == decode_image(_png(COLOUR), COLOUR, _tensor(3, 3, 5))


def test_a_transparent_colour_is_a_colour() -> None:
    marked = _encode(Image.fromarray(_pixels(COLOUR)), transparency=tuple(_pixels(COLOUR)[0, 0].tolist()))
    assert decode_image(marked, COLOUR, _tensor(3, 3, 5)) == decode_image(_png(COLOUR), COLOUR, _tensor(3, 3, 5))


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.fromarray(_pixels(GRAY, seed)) for seed in (3, 4)]
    animated = _encode(frames[0], save_all=True, append_images=frames[1:])
    assert decode_image(animated, GRAY, _tensor(1, 3, 5)) == decode_image(_png(GRAY), GRAY, _tensor(1, 3, 5))


def test_of_16_bit_colour_the_upper_eight_bits_count() -> None:
    pixels = np.random.default_rng(5).integers(2**16, size=(3, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    encoded = _png_header(5, 3, depth=16) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    assert (
        decode_image(encoded, replace(COLOUR, layout="HWC"), _tensor(3, 5, 3)) == (pixels >> 8).astype("<f4").tobytes()
    )


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGB", "RGBA", "I;16"])
def test_another_mode_is_named_and_not_converted(mode: str) -> None:
    with pytest.raises(InstanceInvalid, match=r"expected 5×3 pixels in grayscale \(mode L\), got .*mode") as caught:
        decode_image(_encode(Image.new(mode, (5, 3))), GRAY, _tensor(1, 3, 5))
    assert caught.value.field == "image"
    assert f"mode {mode}" in caught.value.got


def test_four_inks_are_refused() -> None:
    with pytest.raises(InstanceInvalid, match="mode CMYK"):
        decode_image(_encode(Image.new("CMYK", (5, 3)), "JPEG"), COLOUR, _tensor(3, 3, 5))


def test_another_size_is_named_width_first() -> None:
    with pytest.raises(InstanceInvalid, match=r"expected 5×3 pixels .*, got 3×5 pixels"):
        decode_image(_encode(Image.new("L", (3, 5))), GRAY, _tensor(1, 3, 5))


@pytest.mark.parametrize("side", [3_000, 10_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    """Pillow passes the first, warns of the second and refuses the third; it has no data that could be decoded."""
    with pytest.raises(InstanceInvalid, match=f"{side}×{side} pixels|far too many pixels"):
        decode_image(_bomb(side), COLOUR, _tensor(3, 3, 5))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        _encode(Image.new("L", (5, 3)), "TIFF"),
        _encode(Image.new("L", (5, 3)), "GIF"),
        b"%!PS-Adobe-3.0 EPSF-3.0",
    ],
)
def test_what_is_no_picture_or_of_another_format_is_refused(content: bytes) -> None:
    with pytest.raises(
        InstanceInvalid, match=r"image: can not be read as an image .*expected a whole file of PNG, JPEG"
    ):
        decode_image(content, GRAY, _tensor(1, 3, 5))


def test_of_bombs_nothing_is_written_to_the_log() -> None:
    """Pillow's warning, which Python shows once for each number of pixels, would be a client's way to fill it."""
    code = (
        "from tests.service.test_images import _bomb, _decode_or_none\n"
        "assert all(_decode_or_none(_bomb(side)) is None for side in (9_500, 10_000, 13_000))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == ""


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_a_picture_that_breaks_off_is_refused_or_lacks_no_pixel(kind: str) -> None:
    whole = _encode(Image.fromarray(_pixels(COLOUR)), kind)
    expected = decode_image(whole, COLOUR, _tensor(3, 3, 5))
    decoded = [_decode_or_none(whole[:length]) for length in range(len(whole))]
    assert decoded.count(None) > len(whole) * 0.8  # the others only lack what says that the file ends
    assert set(decoded) <= {None, expected}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]), st.data())
def test_damaged_pictures_raise_nothing_else(kind: str, data: st.DataObject) -> None:
    encoded = bytearray(_encode(Image.fromarray(_pixels(COLOUR)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    decoded = _decode_or_none(bytes(encoded))
    assert decoded is None or len(decoded) == 4 * np.prod(COLOUR.shape)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF....WEBPVP8X", b"BM"]),
)
def test_random_bytes_are_no_picture(content: bytes, start: bytes) -> None:
    assert _decode_or_none(start + content) is None


def _decode_or_none(encoded: bytes) -> bytes | None:
    try:
        return decode_image(encoded, COLOUR, _tensor(3, 3, 5))
    except InstanceInvalid:
        return None


# --- how a request brings one ----------------------------------------------------------------------------------------


def _signature(spec: ImageSpec | None = COLOUR) -> Signature:
    return Signature(input=_tensor(*(spec or COLOUR).shape), outputs=(_tensor(2),), image=spec)


def _as_json(encoded: bytes) -> Question:
    body = json.dumps({"image": {"b64": base64.b64encode(encoded).decode()}})
    return Question(body.encode(), Headers(content_type=b"application/json"))


def _as_form(**parts: Any) -> Question:
    """A form as httpx writes it."""
    request = httpx.Request("POST", "http://here/predict", files=parts)
    return Question(request.read(), Headers(content_type=request.headers["content-type"].encode()))


def _as_file(encoded: bytes, media_type: bytes = b"image/png") -> Question:
    return Question(encoded, Headers(content_type=media_type))


def test_all_three_ways_give_the_same_bits() -> None:
    png = _png(COLOUR)
    questions = (
        _as_json(png),
        _as_form(image=("a.png", png, "image/png")),
        _as_file(png),
        _as_file(png, b"Image/PNG; q=1"),
    )
    expected = np.moveaxis(_pixels(COLOUR), 2, 0).astype("<f4").tobytes()
    assert [read_image(question, _signature()) for question in questions] == [expected] * 4


@pytest.mark.parametrize(
    "content_type", [b"", b"application/x-www-form-urlencoded", b"Application/JSON; charset=utf-8"]
)
def test_json_is_read_whatever_curl_calls_it(content_type: bytes) -> None:
    assert read_image_request(_as_json(b"a picture").body, content_type) == b"a picture"


@given(st.binary(max_size=3000))
def test_any_file_comes_through_as_it_was(content: bytes) -> None:
    for question in (_as_json(content), _as_form(image=("x", content))):
        assert read_image_request(question.body, question.headers.content_type) == content


@pytest.mark.parametrize(
    "body",
    [b'{"instance": [1, 2]}', b'{"instance": ["image"]}', b'{"instance": {"image": 1}}', b'["image"]', b"", b"{", b"1"],
)
def test_a_request_without_a_picture_is_for_others_to_read(body: bytes) -> None:
    assert read_image_request(body, b"application/json; charset=utf-8") is None
    assert read_image_request(body, b"text/plain") is None


@pytest.mark.parametrize(
    ("body", "field", "got"),
    [
        ('{"image": "iVBORw0="}', "image", "the string 'iVBORw0='"),
        ('{"image": {}}', "image", "an empty object"),
        ('{"image": {"url": "http://x"}}', "image", "the key 'url'"),
        ('{"image": {"b64": "", "b64": ""}}', "image", "it 2 times"),
        ('{"image": {"b64": ""}, "image": {"b64": ""}}', "", "it 2 times"),
        ('{"image": {"b64": ""}, "instance": [1]}', "", "the key 'instance'"),
        ('{"image": {"b64": 5}}', "image.b64", "5"),
        ('{"image": {"b64": "iVBORw0"}}', "image.b64", "the string 'iVBORw0'"),
        ('{"image": {"b64": "iVBO Rw0="}}', "image.b64", "the string 'iVBO Rw0='"),
        ('{"image": {"b64": "iVBO_w0="}}', "image.b64", "the string 'iVBO_w0='"),
        ('{"image": {"b64": "é€"}}', "image.b64", "the string 'é€'"),
        (
            '{"image": {"b64": "data:image/png;base64,iVBORw0="}}',
            "image.b64",
            "a data URL: send what stands behind its comma",
        ),
    ],
)
def test_json_with_a_mistake_is_told_where_it_is(body: str, field: str, got: str) -> None:
    with pytest.raises(InstanceInvalid) as caught:
        read_image_request(body.encode(), b"application/json")
    assert (caught.value.field, caught.value.got) == (field, got)


def test_json_that_breaks_off_is_told_by_its_byte() -> None:
    with pytest.raises(BodyMalformed, match="breaks off at byte 18"):
        read_image_request(b'{"image": {"b64": ', b"application/json")


@pytest.mark.parametrize(
    ("question", "got"),
    [
        (_as_form(picture=("a.png", b"x")), "a file with the name 'picture'"),
        (_as_form(image=(None, b"x")), "the part 'image', which has no filename"),
        (Question(b"--b--\r\n", Headers(content_type=b"multipart/form-data; boundary=b")), "none"),
    ],
)
def test_a_form_with_another_part_is_told_what_it_has(question: Question, got: str) -> None:
    with pytest.raises(InstanceInvalid) as caught:
        read_image(question, _signature())
    assert (caught.value.field, caught.value.got) == ("image", got)


def test_a_form_with_two_files_is_refused() -> None:
    with pytest.raises(InstanceInvalid, match="got more than one"):
        read_image_request(2 * PART + b"--b--\r\n", b"multipart/form-data; boundary=b")


@pytest.mark.parametrize("content_type", [b"multipart/form-data", b"multipart/form-data; boundary=" + b"x" * 300])
def test_a_form_without_a_boundary_that_can_be_used_is_refused(content_type: bytes) -> None:
    with pytest.raises(BodyMalformed, match="the body is not multipart/form-data"):
        read_image_request(b"--x--\r\n", content_type)


def test_a_form_that_breaks_off_anywhere_is_refused() -> None:
    question = _as_form(image=("a.png", b"0123456789"))
    for length in range(len(question.body) - 4):  # the last four bytes are `--` and the end of the line
        with pytest.raises(RequestError):
            read_image_request(question.body[:length], question.headers.content_type)


def test_a_form_that_breaks_off_after_its_file_is_refused_too() -> None:
    with pytest.raises(BodyMalformed, match="breaks off before the end"):
        read_image_request(PART + b"--b\r\nContent-Dis", b"multipart/form-data; boundary=b")


def test_a_form_that_is_none_is_told_to_the_client_and_not_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BodyMalformed, match=r"the body is not multipart/form-data: .*boundary"):
        read_image_request(b"hello", b"multipart/form-data; boundary=b")
    assert caplog.records == []


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_requests_raise_nothing_else(data: st.DataObject) -> None:
    png = _png(COLOUR)
    question = data.draw(st.sampled_from([_as_json(png), _as_form(image=("a.png", png)), _as_file(png)]))
    body = bytearray(question.body)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=5))
    outcome = _read_or_refuse(question._replace(body=bytes(body)))
    size = 4 * np.prod(COLOUR.shape)
    assert outcome is None or (len(outcome) < MAX_MESSAGE if isinstance(outcome, str) else len(outcome) == size)


def _read_or_refuse(question: Question) -> bytes | str | None:
    try:
        return read_image(question, _signature())
    except RequestError as err:
        return str(err)


def test_another_kind_of_picture_is_told_which_are_read() -> None:
    with pytest.raises(MediaTypeUnsupported, match=r"expected image/png, image/jpeg, .*got 'image/tiff'"):
        read_image_request(b"II*\0", b"image/tiff")


def test_a_model_that_takes_no_pictures_says_so() -> None:
    png = _png(COLOUR)
    with pytest.raises(InstanceInvalid, match="does not say how to decode"):
        read_image(_as_json(png), _signature(None))
    for question in (_as_file(png), _as_form(image=("a.png", png))):
        with pytest.raises(MediaTypeUnsupported, match="expected application/json, as this model's bundle"):
            read_image(question, _signature(None))


def test_the_schema_has_what_is_read() -> None:
    assert image_schema(DIGIT)["properties"]["image"]["required"] == ["b64"]
    content = image_content(DIGIT)
    assert content["multipart/form-data"]["schema"]["required"] == ["image"]
    assert "8×8 pixels in grayscale" in content["image/png"]["schema"]["description"]
    assert all(read_image_request(b"x", name.encode()) == b"x" for name in content if name.startswith("image/"))


# --- what a bundle says ----------------------------------------------------------------------------------------------


def _with_image(model: TinyModel, spec: ImageSpec | None) -> TinyModel:
    return replace(model, signature=replace(model.signature, image=spec))


@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 5), (3, 5, 1), (15,)])
def test_a_bundle_keeps_what_a_picture_becomes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    bundle = write_tiny_bundle(tmp_path, _with_image(tiny_model(shape), GRAY))
    assert read_bundle(bundle.directory).manifest.signature.image == GRAY


@pytest.mark.parametrize("shape", [(1, 5, 3), (3, 3, 5), (16,)])
def test_a_bundle_whose_pictures_do_not_fit_its_input_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    bundle = write_tiny_bundle(tmp_path, _with_image(tiny_model(shape), GRAY))
    with pytest.raises(ManifestInvalid, match=r"manifest\.json: `image` says .*\[1, 3, 5\].* does not fit"):
        read_bundle(bundle.directory)


def test_a_bundle_of_old_takes_no_pictures() -> None:
    golden = Path(__file__).parent.parent / "golden" / "players" / "1"
    assert read_bundle(golden).manifest.signature.image is None


@pytest.mark.parametrize("missing", [1, 4, 12, 13, 16, 20, 40])
def test_a_png_without_its_end_is_refused(missing: int) -> None:
    with pytest.raises(InstanceInvalid, match="expected a whole file"):
        decode_image(_png(COLOUR)[:-missing], COLOUR, _tensor(3, 3, 5))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_text_that_unpacks_to_much_is_refused(kind: bytes) -> None:
    packed = zlib.compress(bytes(200_000))
    text = b"name\0\0" + packed if kind == b"zTXt" else b"name\0\1\0\0\0" + packed
    whole = _png(COLOUR)
    decode_image(whole, COLOUR, _tensor(3, 3, 5))
    with pytest.raises(InstanceInvalid, match="longer than 65536 bytes"):
        decode_image(whole[:33] + _chunk(kind, text) + whole[33:], COLOUR, _tensor(3, 3, 5))
