"""Pictures in files and how one becomes a model's input: one way, so that serving decodes just as training did.

A picture is taken as it is stored. Nothing is resized, converted or turned; a colour profile, EXIF's orientation and a
transparent colour mean nothing. Of an animation it is the first frame, of 16-bit colour the upper eight bits. What is
neither grayscale (Pillow's mode L) nor colour (RGB) is refused: alpha channels, palettes, CMYK, 16-bit and 1-bit gray.
"""

from __future__ import annotations

import functools
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from service.bundle import ImageSpec, TensorSpec
from service.errors import InstanceInvalid
from service.wording import shorten

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image

# As Pillow calls those that a client may send. Not GIF: it has a palette, and is gray or not by its writer's chance.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
# A picture's file may bring texts that are no picture, and packed ones of it become long: so much of them is unpacked.
MAX_TEXT_BYTES = 64 * 1024
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
NUM_CHANNELS = {"L": 1, "RGB": 3}  # Pillow's names for grayscale and colour

Pixels = NDArray[np.uint8]


def decode_image(encoded: bytes, spec: ImageSpec, tensor: TensorSpec) -> bytes:
    """Turn a picture's file into the bytes of an array of the input's dtype, in row-major order.

    Raises:
        InstanceInvalid: it is no picture, or not of the mode and size that the model was trained on.
    """
    pixels = read_pixels(io.BytesIO(encoded), where="image", formats=FORMATS, spec=spec)
    _check_end(encoded)
    arranged = pixels.transpose(2, 0, 1) if spec.layout == "CHW" else pixels
    return _values(spec, tensor.dtype)[arranged].tobytes()


def read_pixels(
    file: Path | io.BytesIO, *, where: str, formats: tuple[str, ...] | None = None, spec: ImageSpec | None = None
) -> Pixels:
    """Read one picture, uint8 [height, width, channels]; only of these formats, and only one that fits the spec.

    `where` stands in front of what is said when it can not be read.

    Raises:
        InstanceInvalid: it is no picture, or of another kind than is expected.
    """
    try:
        with _pillow().open(file, formats=formats) as image:
            _check(image, where, spec)  # while it is not decoded yet: a bomb costs nothing
            image.load()
            _check(image, where, spec)
            return np.asarray(image).reshape(image.height, image.width, NUM_CHANNELS[image.mode])
    except InstanceInvalid:
        raise
    except Exception as err:  # what decoders raise on damaged files is written nowhere
        raise _unreadable(where, formats, err) from err


@functools.cache
def _pillow() -> ModuleType:
    """Import Pillow, which takes long and is seldom wanted; pictures that it would only warn of, it is to refuse."""
    from PIL import Image, PngImagePlugin

    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT_BYTES
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    return Image


@functools.lru_cache(maxsize=64)
def _values(spec: ImageSpec, dtype: str) -> NDArray[np.generic]:
    """Give the input's value for each of the 256 values of a picture."""
    values = np.arange(256, dtype=np.float64) * spec.scale + spec.offset
    if spec.whole or dtype == "int64":
        values = np.rint(values)
    return values.astype(dtype)


def _check_end(encoded: bytes) -> None:
    """Refuse a PNG without its last chunk: Pillow misses neither that nor the checksum before it."""
    if encoded.startswith(PNG_START) and PNG_END not in encoded:
        raise _refuse_file("image", FORMATS, "the PNG breaks off before its end")


def _check(image: Image, where: str, spec: ImageSpec | None) -> None:
    if spec is not None:
        _check_fits(image, where, spec)
    elif image.mode not in NUM_CHANNELS:
        raise InstanceInvalid(
            f"{where}: is in Pillow's mode {image.mode}: convert it to grayscale (L) or colour (RGB) first"
        )


def _check_fits(image: Image, where: str, spec: ImageSpec) -> None:
    expected, got = _describe(spec.width, spec.height, spec.mode), _describe(image.width, image.height, image.mode)
    if expected != got:
        raise InstanceInvalid(
            f"{where}: expected {expected}, got {got}; bring it to this size and mode first, nothing is resized or "
            "converted here",
            field="image",
            expected=expected,
            got=got,
        )


def _describe(width: int, height: int, mode: str) -> str:
    names = {"L": "grayscale (mode L)", "RGB": "colour (mode RGB)"}
    return f"{width}×{height} pixels in {names.get(mode, f'mode {mode}')}"


def _unreadable(where: str, formats: tuple[str, ...] | None, err: Exception) -> InstanceInvalid:
    return _refuse_file(where, formats, _reason(err))


def _refuse_file(where: str, formats: tuple[str, ...] | None, reason: str) -> InstanceInvalid:
    expected = f"a whole file of {', '.join(formats)}" if formats else "a picture that Pillow reads"
    message = f"{where}: can not be read as an image ({reason}): expected {expected}"
    return InstanceInvalid(message, field="image", expected=expected)


def _reason(err: Exception) -> str:
    """Say it without what Pillow says of its own objects and limits."""
    pillow = _pillow()
    if isinstance(err, pillow.DecompressionBombError | pillow.DecompressionBombWarning):
        return "it has far too many pixels"
    if "MAX_TEXT" in str(err):
        return f"a text or colour profile in it is longer than {MAX_TEXT_BYTES} bytes"
    return "it is none, or breaks off early" if isinstance(err, pillow.UnidentifiedImageError) else shorten(str(err))
