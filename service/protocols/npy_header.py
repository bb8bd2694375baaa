r"""The header of NumPy's .npy files, read as a text of three fields; NumPy's own reader evaluates it as Python.

    \x93NUMPY 1 0 <length> {'descr': '<f4', 'fortran_order': False, 'shape': (2, 784), }

The two numbers are the format's version, from 1.0 to 3.0; the length has two bytes in version 1, four in later ones,
and covers the rest of the header. The fields may stand in any order. Structures, which have lists for a `descr`, are
no arrays of numbers, and are not read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from service.errors import BodyMalformed

MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
MAX_BYTES, MAX_AXES, MAX_DIGITS = 2000, 8, 19
DESCR = re.compile(rb"""(['"])descr\1 *: *(['"])([^'"\\]*)\2""")
ORDER = re.compile(rb"""(['"])fortran_order\1 *: *(True|False)""")
SHAPE = re.compile(rb"""(['"])shape\1 *: *\(([0-9, ]*)\)""")


class NpyHeader(NamedTuple):
    """What a header says; `descr` is a dtype as NumPy spells it, `start` the place of the first value."""

    descr: str
    is_fortran_order: bool
    shape: tuple[int, ...]
    start: int


def read_npy_header(body: bytes) -> NpyHeader:
    """Read the header that the body starts with.

    Raises:
        BodyMalformed: it starts with none, or with one that is not of an array of numbers.
    """
    text, start = _take_text(body)
    descr, order, shape = DESCR.search(text), ORDER.search(text), SHAPE.search(text)
    if not (descr and order and shape) or _has_more(text):
        raise _malformed()
    return NpyHeader(descr[3].decode("latin-1"), order[2] == b"True", _read_shape(shape[2]), start)


def _take_text(body: bytes) -> tuple[bytes, int]:
    num_bytes = LENGTH_BYTES.get(body[6:8])
    if not body.startswith(MAGIC) or num_bytes is None:
        raise _malformed()
    first = 8 + num_bytes
    length = int.from_bytes(body[8:first], "little")
    if length > MAX_BYTES or len(body) < first + length:
        raise _malformed()
    return body[first : first + length], first + length


def _has_more(text: bytes) -> bool:
    """Whether there is anything beside the three fields."""
    for field in (DESCR, ORDER, SHAPE):
        text = field.sub(b"", text, count=1)
    return bool(text.strip(b"{}, \n"))


def _read_shape(text: bytes) -> tuple[int, ...]:
    axes = [axis.strip() for axis in text.split(b",") if axis.strip()]
    if len(axes) > MAX_AXES or not all(axis.isdigit() and len(axis) <= MAX_DIGITS for axis in axes):
        raise _malformed()
    return tuple(map(int, axes))


def _malformed() -> BodyMalformed:
    return BodyMalformed(
        "the body is not a .npy file with an array of numbers", expected="what numpy.save writes", got="something else"
    )
