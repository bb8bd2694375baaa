"""Why a body is not an instance: the slow and thorough reading, taken only after the fast one has refused.

The fast reader (`instance.py`) knows only that something is wrong. This one reads the body again with the standard
library, which keeps what the fast one loses (duplicate names, NaN, where the text breaks off), and names the first
mistake by its path, with what was expected there and what arrived. It answers every body, however wrong or hostile,
with an error value; it raises nothing, and it quotes no more than a few characters of what was sent.
"""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.bundle import Feature, Signature
from service.errors import BodyMalformed, InstanceInvalid, RequestError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_QUOTED = 40
MAX_LISTED = 12
# Longer integers are read as floats: Python takes quadratic time for them, and refuses beyond 4300 digits.
MAX_INTEGER_DIGITS = 300


def explain(body: bytes, signature: Signature) -> RequestError:
    """Say what is wrong with a body that is not an instance of the signature."""
    unnamed = InstanceInvalid("the instance does not fit the model's input", field="instance")
    return find_mistake(body, signature) or unnamed


def find_mistake(body: bytes, signature: Signature) -> RequestError | None:
    """Find the first mistake in a body; None if it is an instance of the signature."""
    try:
        _check_document(_parse(_read_text(body)), signature)
    except RequestError as err:
        return err
    return None


@dataclass(frozen=True)
class _Object:
    """A JSON object with its members in order, duplicates kept."""

    members: list[tuple[str, Any]]


class _NotFinite(str):
    """A number that JSON or double precision has no place for, as it was written: NaN, Infinity, 1e999."""

    __slots__ = ()


# --- the text --------------------------------------------------------------------------------------------------------


def _read_text(body: bytes) -> str:
    if not body:
        raise BodyMalformed("the body is empty", expected='{"instance": …}', got="nothing")
    if body.startswith(BYTE_ORDER_MARK):
        raise BodyMalformed("the body starts with a byte order mark", expected="JSON in UTF-8, without a mark")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as err:
        raise BodyMalformed(f"the body is not UTF-8: byte {err.start} fits nowhere", expected="JSON in UTF-8") from err


def _parse(text: str) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=_Object,
            parse_constant=_NotFinite,
            parse_float=_parse_float,
            parse_int=_parse_integer,
        )
    except json.JSONDecodeError as err:
        raise _malformed(text, err) from err
    except RecursionError as err:
        raise BodyMalformed("the body is nested too deeply", expected='{"instance": …}') from err


def _malformed(text: str, err: json.JSONDecodeError) -> BodyMalformed:
    offset = len(text[: err.pos].encode())
    if not text[err.pos :].strip():
        return BodyMalformed(f"the body is not JSON: it breaks off at byte {offset}", got="an unfinished text")
    return BodyMalformed(f"the body is not JSON: {err.msg[0].lower()}{err.msg[1:]}, at byte {offset}")


def _parse_float(text: str) -> float | _NotFinite:
    value = float(text)
    return value if math.isfinite(value) else _NotFinite(text)


def _parse_integer(text: str) -> int | float | _NotFinite:
    return int(text) if len(text) <= MAX_INTEGER_DIGITS else _parse_float(text)


# --- the document around the instance --------------------------------------------------------------------------------


def _check_document(document: Any, signature: Signature) -> None:
    instance = _take_instance(document)
    if isinstance(instance, _Object) and signature.features:
        _check_named_row(instance, signature)
    elif isinstance(instance, list):
        _check_list(instance, signature)
    else:
        _refuse("instance", expected=_expected_instance(signature), got=_describe(instance))


def _take_instance(document: Any) -> Any:
    if not isinstance(document, _Object):
        raise InstanceInvalid(
            'the body is not an object: expected {"instance": …}', expected="an object", got=_describe(document)
        )
    names = Counter(name for name, _ in document.members)
    for name in names:
        if name != "instance":
            raise InstanceInvalid(
                f"unknown key {_quote(name)}: expected 'instance' and nothing beside it",
                field=_shorten(name),
                expected="instance",
                got=_quote(name),
            )
    if names["instance"] != 1:
        how_often = "is missing" if not names["instance"] else "stands there more than once"
        raise InstanceInvalid(f"the key 'instance' {how_often}", field="instance", expected='{"instance": …}')
    return document.members[0][1]


def _expected_instance(signature: Signature) -> str:
    if signature.features:
        return f"a list of {len(signature.features)} values, or an object of named features"
    return _expected_array(signature)


def _expected_array(signature: Signature) -> str:
    shape = signature.input.shape
    flat = f"a list of {math.prod(shape)} {_plural(signature)}"
    return flat if len(shape) == 1 else f"{flat}, or nested as {' × '.join(map(str, shape))}"


def _check_list(instance: list[Any], signature: Signature) -> None:
    if signature.features:
        _check_ordered_row(instance, signature)
    elif len(signature.input.shape) > 1 and any(isinstance(item, list) for item in instance):
        _check_nested(instance, signature.input.shape, "instance", signature)
    else:
        _check_flat(instance, signature)


# --- arrays ----------------------------------------------------------------------------------------------------------


def _check_flat(instance: list[Any], signature: Signature) -> None:
    if instance and all(isinstance(item, list) for item in instance):
        _refuse(
            "instance",
            expected=_expected_array(signature),
            got=f"a list of {len(instance)} lists",
            hint="send one instance, without a batch axis",
        )
    if len(instance) != math.prod(signature.input.shape):
        _refuse("instance", expected=_expected_array(signature), got=_describe(instance))
    for index, value in enumerate(instance):
        _check_number(value, f"instance[{index}]", signature)


def _check_nested(value: Any, shape: tuple[int, ...], path: str, signature: Signature) -> None:
    if not shape:
        _check_number(value, path, signature)
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        items = "lists" if len(shape) > 1 else _plural(signature)
        _refuse(path, expected=f"a list of {shape[0]} {items}", got=_describe(value))
    for index, item in enumerate(value):
        _check_nested(item, shape[1:], f"{path}[{index}]", signature)


def _check_number(value: Any, path: str, signature: Signature) -> None:
    dtype = signature.input.dtype
    expected = "an integer" if dtype == "int64" else "a number"
    kinds = (int,) if dtype == "int64" else (int, float)
    if isinstance(value, bool) or not isinstance(value, (*kinds, _NotFinite)):
        _refuse(path, expected=expected, got=_describe(value))
    if isinstance(value, _NotFinite) or not _fits(value, dtype):
        _refuse(path, expected=f"{expected} that is finite as {dtype}", got=_describe(value))


def _fits(value: float, dtype: str) -> bool:
    if dtype == "int64":
        limits = np.iinfo(np.int64)
        return bool(limits.min <= value <= limits.max)
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.float64(value).astype(dtype)))


# --- rows of a table -------------------------------------------------------------------------------------------------


def _check_ordered_row(instance: list[Any], signature: Signature) -> None:
    if len(instance) != len(signature.features):
        names = _list_names([feature.name for feature in signature.features])
        _refuse("instance", expected=f"{len(signature.features)} values ({names})", got=_describe(instance))
    for index, (value, feature) in enumerate(zip(instance, signature.features, strict=True)):
        _check_feature(value, f"instance[{index}]", feature, signature)


def _check_named_row(instance: _Object, signature: Signature) -> None:
    known = {feature.name: feature for feature in signature.features}
    counts = Counter(name for name, _ in instance.members)
    for name, count in counts.items():
        if name not in known:
            _refuse_unknown(f"instance[{_quote(name)}]", name, list(known), what="feature")
        if count > 1:
            _refuse(f"instance[{_quote(name)}]", expected="the feature once", got=f"it {count} times")
    missing = [name for name in known if name not in counts]
    if missing:
        _refuse("instance", expected=f"all {len(known)} features", got=f"none named {_list_names(missing)}")
    for name, value in instance.members:
        _check_feature(value, f"instance[{_quote(name)}]", known[name], signature)


def _check_feature(value: Any, path: str, feature: Feature, signature: Signature) -> None:
    if not feature.categories:
        _check_number(value, path, signature)
    elif not isinstance(value, str) or isinstance(value, _NotFinite):
        words = _list_names(list(feature.categories))
        _refuse(path, expected=f"one of the words {words}, for feature {feature.name!r}", got=_describe(value))
    elif value not in feature.categories:
        _refuse_unknown(path, value, list(feature.categories), what=f"category of feature {feature.name!r}")


# --- the words -------------------------------------------------------------------------------------------------------


def _refuse(path: str, *, expected: str, got: str, hint: str = "") -> None:
    message = f"{path}: expected {expected}, got {got}"
    raise InstanceInvalid(f"{message}; {hint}" if hint else message, field=path, expected=expected, got=got)


def _refuse_unknown(path: str, name: str, known: list[str], *, what: str) -> None:
    close = difflib.get_close_matches(name[:MAX_QUOTED], known, n=1)
    question = f" Did you mean {close[0]!r}?" if close else ""
    expected = f"one of {_list_names(known)}"
    raise InstanceInvalid(
        f"{path}: {_quote(name)} is no known {what}; expected {expected}.{question}",
        field=path,
        expected=expected,
        got=_quote(name),
    )


def _plural(signature: Signature) -> str:
    return "integers" if signature.input.dtype == "int64" else "numbers"


def _list_names(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:MAX_LISTED])
    return shown if len(names) <= MAX_LISTED else f"{shown} … ({len(names)} in all)"


def _describe(value: Any) -> str:
    match value:
        case None | bool():
            return json.dumps(value)
        case _NotFinite():
            return _shorten(value)
        case str():
            return f"the string {_quote(value)}"
        case _Object():
            return "an object"
        case list():
            return f"a list of {len(value)}"
        case _:
            return _shorten(repr(value))


def _quote(text: str) -> str:
    """`repr` also escapes what could not be encoded in the answer, such as half a surrogate pair."""
    return repr(_cut(str(text)))


def _shorten(text: str) -> str:
    return _quote(text)[1:-1]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "…"
