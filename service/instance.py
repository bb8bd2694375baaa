"""One JSON body in, the bytes of one array of the signature's dtype out: the fast way, which a good request takes.

The body is decoded once, typed, and strict: no booleans, no strings, no NaN, no key that does not belong. What typing
can not see, packing does: it refuses another number of values, and numbers that are finite as JSON but not as float32.
Names that stand twice are looked for in between, by counting colons. Whatever fails here is read again by
`diagnosis.explain`, which knows the words for it. Long lists of numbers go by a quicker way still, `number_text.py`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.bundle import Feature, Signature
from service.diagnosis import explain, find_mistake
from service.errors import RequestError
from service.json_text import MAX_THOROUGH_BYTES, count_colons, hides_colon
from service.number_text import plan_number_text

Array = NDArray[Any]
TYPECODES = {"float32": "f", "float64": "d", "int64": "q"}
# From a sequence of numbers, spread out, to the bytes of an array.
Pack = Callable[..., bytes]
# What the decoding below raises on a body that is no instance. Everything else would be a bug, and shows.
REFUSALS = (msgspec.MsgspecError, struct.error, ValueError, OverflowError, RecursionError)


class InstanceReader:
    """Reads instances of one signature."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._read = _plan_reading(signature)
        self._shape = signature.input.shape
        self._dtype = np.dtype(signature.input.dtype)

    def pack(self, body: bytes) -> bytes:
        """Turn a body `{"instance": …}` into the bytes of an array of the signature's dtype, in row-major order.

        Raises:
            RequestError: the body is no instance; `field`, `expected` and `got` say where and why.
        """
        packed = self.try_pack(body)
        if packed is None:
            raise self.explain(body)
        return packed

    def try_pack(self, body: bytes) -> bytes | None:
        """Do as `pack` does, but give None for a body that is no instance: what is wrong with it takes long to say."""
        try:
            return self._read(body)
        except REFUSALS:
            return None

    def decode(self, body: bytes) -> Array:
        """Turn a body `{"instance": …}` into an array of the signature's dtype and shape.

        Raises:
            RequestError: the body is no instance; `field`, `expected` and `got` say where and why.
        """
        return np.frombuffer(self.pack(body), self._dtype).reshape(self._shape)

    def explain(self, body: bytes) -> RequestError:
        """Say what is wrong with a body that `decode` refuses."""
        return explain(body, self._signature)


def _plan_reading(signature: Signature) -> Callable[[bytes], bytes]:
    number = int if signature.input.dtype == "int64" else float
    pack = _plan_packing(signature)
    if signature.features:
        return _plan_rows(signature, number, pack)
    read_flat = _plan_flat(number, pack)
    thorough = read_flat if len(signature.input.shape) == 1 else _plan_nested(signature, number, read_flat, pack)
    return _plan_quick(signature, thorough)


def _plan_quick(signature: Signature, thorough: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Read long lists of numbers the quick way first, where there is one."""
    quick = plan_number_text(signature.input.shape, np.dtype(signature.input.dtype))
    if quick is None:
        return thorough

    def read(body: bytes) -> bytes:
        return quick(body) or thorough(body)

    return read


def _plan_packing(signature: Signature) -> Pack:
    """Pack as many numbers as the signature has; any other count, and what overflows the dtype, is an error.

    The "=" is a check: with it `struct` refuses a number beyond float32, without it that would become an infinity.
    The decoder lets no NaN and no infinity pass, so what is packed is finite.
    """
    return struct.Struct(f"={math.prod(signature.input.shape)}{TYPECODES[signature.input.dtype]}").pack


def _plan_flat(number: type, pack: Pack) -> Callable[[bytes], bytes]:
    """Read a list of numbers, in row-major order."""
    decode = _document_decoder(list[number])  # type: ignore[valid-type]

    def read(body: bytes) -> bytes:
        values = decode(body).instance
        _refuse_second_colon(body)
        return pack(*values)

    return read


def _plan_nested(
    signature: Signature, number: type, read_flat: Callable[[bytes], bytes], pack: Pack
) -> Callable[[bytes], bytes]:
    """Read numbers nested as the shape is; the flat list first, as it is the faster one to send."""
    kind: Any = number
    for _ in signature.input.shape:
        kind = list[kind]
    num_brackets = sum(math.prod(signature.input.shape[:axis]) for axis in range(len(signature.input.shape)))
    decode = _document_decoder(kind)
    wide = np.int64 if number is int else np.float64

    def read(body: bytes) -> bytes:
        try:
            return read_flat(body)
        except REFUSALS:
            if body.count(b"[") != num_brackets:
                raise
            nested = np.array(decode(body).instance, dtype=wide)
        _refuse_second_colon(body)
        if nested.shape != signature.input.shape:
            raise ValueError("the instance has another shape")
        return pack(*nested.ravel().tolist())

    return read


def _plan_rows(signature: Signature, number: type, pack: Pack) -> Callable[[bytes], bytes]:
    """Read a row: an object of named features, or a list of their values in the signature's order."""
    split = _document_decoder(msgspec.Raw)
    decode_named = msgspec.json.Decoder(_row_type(signature.features, number, array_like=False)).decode
    decode_ordered = msgspec.json.Decoder(_row_type(signature.features, number, array_like=True)).decode
    expand = _plan_expansion(signature.features)
    num_colons = 1 + sum(1 + feature.name.count(":") for feature in signature.features)
    has_words = any(feature.categories for feature in signature.features)

    def read(body: bytes) -> bytes:
        row = bytes(split(body).instance)
        is_named = row.startswith(b"{")
        values = msgspec.structs.astuple(decode_named(row) if is_named else decode_ordered(row))
        # All names are there; so with no more colons than they and the words have, none stands twice.
        wanted = (num_colons if is_named else 1) + (count_colons(list(values)) if has_words else 0)
        if body.count(b":") != wanted or hides_colon(body):
            _refuse_duplicates(body, signature)
        return pack(*expand(values))

    return read


def _document_decoder(kind: Any) -> Callable[[bytes], Any]:
    document = msgspec.defstruct("Document", [("instance", kind)], forbid_unknown_fields=True, gc=False)
    return msgspec.json.Decoder(document).decode


def _row_type(features: tuple[Feature, ...], number: type, *, array_like: bool) -> type[msgspec.Struct]:
    fields = [(f"feature_{index}", _feature_type(feature, number)) for index, feature in enumerate(features)]
    names = {field: feature.name for (field, _), feature in zip(fields, features, strict=True)}
    return msgspec.defstruct("Row", fields, rename=names, array_like=array_like, forbid_unknown_fields=True, gc=False)


def _feature_type(feature: Feature, number: type) -> Any:
    return Literal[feature.categories] if feature.categories else number


def _plan_expansion(features: tuple[Feature, ...]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """From a row's values to the model's: numbers stay, a category becomes its one-hot code."""
    codes = [_one_hot_codes(feature) for feature in features]
    if not any(codes):
        return lambda values: values

    def expand(values: Sequence[Any]) -> list[Any]:
        expanded: list[Any] = []
        for value, code in zip(values, codes, strict=True):
            expanded.extend(code[value] if code else (value,))
        return expanded

    return expand


def _one_hot_codes(feature: Feature) -> dict[str, tuple[int, ...]]:
    words = feature.categories
    return {word: tuple(int(word == other) for other in words) for word in words}


def _refuse_second_colon(body: bytes) -> None:
    """Numbers contain no colon: a second one means a second key, and the decoder has kept the last of them."""
    if body.find(b":", body.find(b":") + 1) != -1:
        raise ValueError("the key 'instance' stands there twice")


def _refuse_duplicates(body: bytes, signature: Signature) -> None:
    """Read a row that decoded well once more, for the sake of names that stand twice; a long one not even that."""
    if len(body) > MAX_THOROUGH_BYTES or find_mistake(body, signature) is not None:
        raise ValueError("a name stands there twice")
