"""Why a body is not an instance: the slow and thorough reading, taken only after the fast one has refused.

The fast reader (`instance.py`) knows only that something is wrong. This one reads the body again with the standard
library, which keeps what the fast one loses (duplicate names, NaN, where the text breaks off), and names the first
mistake by its path, with what was expected there and what arrived. It answers every body, however wrong or hostile,
with an error value; it raises nothing, and it quotes no more than a few characters of what was sent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from service.bundle import Feature, Signature
from service.errors import InstanceInvalid, RequestError
from service.json_text import JsonObject, NotFinite, read_json
from service.wording import describe, did_you_mean, list_names, quote, shorten, shorten_path

INTEGER_OF_64_BITS = "an integer from -2^63 to 2^63-1"


def explain(body: bytes, signature: Signature) -> RequestError:
    """Say what is wrong with a body that is not an instance of the signature."""
    unnamed = InstanceInvalid("the instance does not fit the model's input", field="instance")
    return find_mistake(body, signature) or unnamed


def find_mistake(body: bytes, signature: Signature) -> RequestError | None:
    """Find the first mistake in a body; None if it is an instance of the signature."""
    try:
        _check_document(read_json(body, '{"instance": …}'), signature)
    except RequestError as err:
        return err
    return None


# --- the document around the instance --------------------------------------------------------------------------------


def _check_document(document: Any, signature: Signature) -> None:
    instance = _take_instance(document)
    if isinstance(instance, JsonObject) and signature.features:
        _check_named_row(instance, signature)
    elif isinstance(instance, list):
        _check_list(instance, signature)
    else:
        refuse("instance", expected=_expected_instance(signature), got=describe(instance))


def _take_instance(document: Any) -> Any:
    if not isinstance(document, JsonObject):
        raise InstanceInvalid(
            'the body is not an object: expected {"instance": …}', expected="an object", got=describe(document)
        )
    names = Counter(name for name, _ in document.members)
    for name in names:
        if name != "instance":
            raise InstanceInvalid(
                f"unknown key {quote(name)}: expected 'instance' and nothing beside it",
                field=shorten(name),
                expected="instance",
                got=quote(name),
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
        check_nested(instance, signature.input.shape, "instance", signature.input.dtype)
    else:
        _check_flat(instance, signature)


# --- arrays ----------------------------------------------------------------------------------------------------------


def _check_flat(instance: list[Any], signature: Signature) -> None:
    if instance and all(isinstance(item, list) for item in instance):
        refuse(
            "instance",
            expected=_expected_array(signature),
            got=f"a list of {len(instance)} lists",
            hint="send one instance, without a batch axis",
        )
    if len(instance) != math.prod(signature.input.shape):
        refuse("instance", expected=_expected_array(signature), got=describe(instance))
    check_nested(instance, (len(instance),), "instance", signature.input.dtype)


def check_nested(value: Any, shape: tuple[int, ...], path: str, dtype: str) -> None:
    """Refuse what is not numbers that the dtype holds, nested as `shape`.

    Raises:
        InstanceInvalid: and says what stands at which place below `path`.
    """
    misfit = _find_misfit(value, shape, dtype)
    if misfit is None:
        return
    for place in misfit:
        value = value[place]
    where, inner = path + "".join(f"[{place}]" for place in misfit), shape[len(misfit) :]
    if not inner:
        check_number(value, where, dtype)
    items = "lists" if len(inner) > 1 else "integers" if dtype == "int64" else "numbers"
    refuse(where, expected=f"a list of {inner[0]} {items}" if inner else "a number", got=describe(value))


def _find_misfit(value: Any, shape: tuple[int, ...], dtype: str) -> tuple[int, ...] | None:
    """Find the first place that is not as it should be, by its indices; the place itself is the empty tuple."""
    if _are_nested(value, shape, dtype):
        return None
    if not shape or not isinstance(value, list) or len(value) != shape[0]:
        return ()
    inner = shape[1:]
    place = find_first(value, lambda part: _are_nested(part, (len(part), *inner), dtype))
    return (place, *(_find_misfit(value[place], inner, dtype) or ()))


def _are_nested(value: object, shape: tuple[int, ...], dtype: str) -> bool:
    values = flatten(value, shape)
    return values is not None and are_numbers(values, dtype)


def flatten(value: object, shape: tuple[int, ...]) -> list[Any] | None:
    """Take all lists of a value that is nested as `shape` apart; None if it is nested otherwise."""
    level: list[Any] = [value]
    for size in shape:
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            return None
        level = level[0] if len(level) == 1 else list(chain.from_iterable(level))
    return level


def find_first(items: Sequence[Any], are_good: Callable[[Sequence[Any]], bool]) -> int:
    """Find the first item that is not good, where there is one: by halves, so that all are asked about but twice."""
    start, stop = 0, len(items)
    while stop - start > 1:
        middle = (start + stop) // 2
        if are_good(items[start:middle]):
            start = middle
        else:
            stop = middle
    return start


def are_numbers(values: Sequence[Any], dtype: str) -> bool:
    """Say if all values are numbers that the dtype holds."""
    return convert_numbers(values, np.dtype(dtype)) is not None


def convert_numbers(values: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Convert plain numbers to an array, each rounded to the nearest of the dtype; of int64, integers only.

    None if there is something else among them, or a number that the dtype does not hold.
    """
    is_integer = dtype.kind == "i"
    if not set(map(type, values)) <= ({int} if is_integer else {int, float}):
        return None
    try:
        array = np.fromiter(values, np.int64 if is_integer else np.float64, len(values))
    except OverflowError:
        return None
    with np.errstate(over="ignore"):
        array = array.astype(dtype, copy=False)
    return array if np.isfinite(array).all() else None


def check_number(value: Any, path: str, dtype: str) -> None:
    """Refuse what is no number, or none that the dtype holds.

    Raises:
        InstanceInvalid: and says what stands at `path`.
    """
    if are_numbers([value], dtype):
        return
    if dtype == "int64":
        is_number = isinstance(value, int) and not isinstance(value, bool)
        refuse(path, expected=INTEGER_OF_64_BITS if is_number else "an integer", got=describe(value))
    is_number = isinstance(value, int | float | NotFinite) and not isinstance(value, bool)
    refuse(path, expected=f"a number that is finite as {dtype}" if is_number else "a number", got=describe(value))


# --- rows of a table -------------------------------------------------------------------------------------------------


def _check_ordered_row(instance: list[Any], signature: Signature) -> None:
    if len(instance) != len(signature.features):
        names = list_names([feature.name for feature in signature.features])
        refuse("instance", expected=f"{len(signature.features)} values ({names})", got=describe(instance))
    for index, (value, feature) in enumerate(zip(instance, signature.features, strict=True)):
        if not fits_feature(value, feature, signature):
            check_feature(value, f"instance[{index}]", feature, signature)


def _check_named_row(instance: JsonObject, signature: Signature) -> None:
    known = {feature.name: feature for feature in signature.features}
    counts = Counter(name for name, _ in instance.members)
    for name, count in counts.items():
        if name not in known:
            refuse_unknown(f"instance[{quote(name)}]", name, list(known), what="feature")
        if count > 1:
            refuse(f"instance[{quote(name)}]", expected="the feature once", got=f"it {count} times")
    missing = [name for name in known if name not in counts]
    if missing:
        refuse("instance", expected=f"all {len(known)} features", got=f"none named {list_names(missing)}")
    for name, value in instance.members:
        if not fits_feature(value, known[name], signature):
            check_feature(value, f"instance[{quote(name)}]", known[name], signature)


def fits_feature(value: Any, feature: Feature, signature: Signature) -> bool:
    """Say if a value is a number or, where the feature has words, one of these."""
    if feature.categories:
        return type(value) is str and value in feature.categories
    return are_numbers([value], signature.input.dtype)


def check_feature(value: Any, path: str, feature: Feature, signature: Signature) -> None:
    """Refuse what is no number, or none of the feature's words.

    Raises:
        InstanceInvalid: and says what stands at `path`.
    """
    if not feature.categories:
        check_number(value, path, signature.input.dtype)
    elif not isinstance(value, str) or isinstance(value, NotFinite):
        words = list_names(list(feature.categories))
        refuse(path, expected=f"one of the words {words}, for feature {quote(feature.name)}", got=describe(value))
    elif value not in feature.categories:
        refuse_unknown(path, value, list(feature.categories), what=f"category of feature {quote(feature.name)}")


# --- the words -------------------------------------------------------------------------------------------------------


def refuse(path: str, *, expected: str, got: str, hint: str = "") -> NoReturn:
    """Refuse what stands at `path`.

    Raises:
        InstanceInvalid: always.
    """
    where = shorten_path(path)
    message = f"{where}: expected {expected}, got {got}"
    raise InstanceInvalid(f"{message}; {hint}" if hint else message, field=where, expected=expected, got=got)


def refuse_unknown(path: str, name: str, known: list[str], *, what: str) -> NoReturn:
    """Refuse a name that is none of those known; `what` they are, as `feature`.

    Raises:
        InstanceInvalid: always, with the nearest name as a question.
    """
    expected, where = f"one of {list_names(known)}", shorten_path(path)
    raise InstanceInvalid(
        f"{where}: {quote(name)} is no known {what}; expected {expected}.{did_you_mean(name, known)}",
        field=where,
        expected=expected,
        got=quote(name),
    )


def _plural(signature: Signature) -> str:
    return "integers" if signature.input.dtype == "int64" else "numbers"
