"""Reading instances: what fits is read bit by bit, what does not is named by its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.bundle import EXAMPLES_FILE, MODEL_FILE, Feature, Signature, TensorSpec, read_manifest
from service.errors import BodyMalformed, InstanceInvalid, ManifestInvalid, RequestError, RequestInvalid
from service.instance import InstanceReader
from service.protocols.predict import read_top_k
from tests.service.tiny_models import tiny_manifest, tiny_model, write_tiny_bundle

IRIS = (Feature(name="sepal length"), Feature(name="petal: width"), Feature(name="colour", categories=("red", "blue")))


def signature(shape: tuple[int, ...] = (3,), dtype: str = "float32", features: tuple[Feature, ...] = ()) -> Signature:
    scores = TensorSpec(name="scores", dtype="float32", shape=(2,))
    return Signature(input=TensorSpec(name="x", dtype=dtype, shape=shape), outputs=(scores,), features=features)


FLAT = InstanceReader(signature())
DOUBLE = InstanceReader(signature(dtype="float64"))
INTEGERS = InstanceReader(signature(dtype="int64"))
IMAGE = InstanceReader(signature((1, 2, 3)))
TABLE = InstanceReader(signature((4,), features=IRIS))
READERS = [FLAT, DOUBLE, INTEGERS, IMAGE, TABLE]


def refusal(reader: InstanceReader, body: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        reader.decode(body)
    return caught.value


def read_or_refuse(reader: InstanceReader, body: bytes) -> Any:
    try:
        return reader.decode(body)
    except RequestError as err:
        return err


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@given(data=st.data())
def test_what_is_written_is_read_back_bit_by_bit(dtype: str, data: st.DataObject) -> None:
    finite: Any = {} if dtype == "int64" else {"allow_nan": False, "allow_infinity": False}
    instance = data.draw(arrays.arrays(dtype, (3,), elements=arrays.from_dtype(np.dtype(dtype), **finite)))
    reader = InstanceReader(signature(dtype=dtype))
    exact = json.dumps({"instance": instance.tolist()}).encode()
    shortest = b'{"instance":' + orjson.dumps(instance, option=orjson.OPT_SERIALIZE_NUMPY) + b"}"
    for body in (exact, shortest):
        read = reader.decode(body)
        assert read.dtype == instance.dtype
        assert read.tobytes() == instance.tobytes()


@given(arrays.arrays("float32", (1, 2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_an_image_reads_the_same_flat_and_nested(image: Any) -> None:
    flat = IMAGE.decode(json.dumps({"instance": image.ravel().tolist()}).encode())
    nested = IMAGE.decode(json.dumps({"instance": image.tolist()}).encode())
    assert flat.tobytes() == nested.tobytes() == image.tobytes()
    assert flat.shape == nested.shape == (1, 2, 3)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("instance"), inner),
)


@pytest.mark.parametrize("reader", READERS)
@given(body=st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_an_instance_or_a_request_error(reader: InstanceReader, body: bytes) -> None:
    read = read_or_refuse(reader, body)
    assert str(read) if isinstance(read, RequestError) else np.isfinite(read).all()


@pytest.mark.parametrize("reader", READERS)
@given(value=json_values)
def test_any_instance_is_read_or_refused_with_a_path(reader: InstanceReader, value: Any) -> None:
    read = read_or_refuse(reader, json.dumps({"instance": value}).encode())
    if isinstance(read, RequestError):
        assert read.field.startswith("instance")
        assert read.expected
        assert len(str(read)) < 600


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b"   ", "breaks off at byte 3"),
        (b'\xef\xbb\xbf{"instance":[1,2,3]}', "byte order mark"),
        (b'{"instance":[1,2,"\xff"]}', "not UTF-8: byte 18"),
        (b'{"instance":[1,2,3]', "breaks off at byte 19"),
        (b'{"instance":[1,2,3],}', "at byte"),
        (b'{"instance":[1,2,3]} x', "at byte 21"),
        (b"[" * 250_000, "nested too deeply"),
        (b'{"instance":' + b"[" * 250_000, "nested too deeply"),
    ],
)
def test_a_body_that_is_not_json_is_malformed(body: bytes, said: str) -> None:
    error = refusal(FLAT, body)
    assert isinstance(error, BodyMalformed)
    assert said in str(error)


@pytest.mark.parametrize(
    ("instance", "field", "expected", "got"),
    [
        ("[1,2]", "instance", "a list of 3 numbers", "a list of 2"),
        ("[1,2,3,4]", "instance", "a list of 3 numbers", "a list of 4"),
        ("[1,null,3]", "instance[1]", "a number", "null"),
        ("[true,2,3]", "instance[0]", "a number", "true"),
        ('[1,2,"3"]', "instance[2]", "a number", "the string '3'"),
        ("[NaN,2,3]", "instance[0]", "a number that is finite as float32", "NaN"),
        ("[1,-Infinity,3]", "instance[1]", "a number that is finite as float32", "-Infinity"),
        ("[1,1e999,3]", "instance[1]", "a number that is finite as float32", "1e999"),
        ("[1,1e39,3]", "instance[1]", "a number that is finite as float32", "1e+39"),
        ("[1,2,{}]", "instance[2]", "a number", "an object"),
        ("[[1,2,3]]", "instance", "a list of 3 numbers", "a list of 1 lists"),
        ("3", "instance", "a list of 3 numbers", "3"),
        ('{"a":1}', "instance", "a list of 3 numbers", "an object"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(instance: str, field: str, expected: str, got: str) -> None:
    error = refusal(FLAT, f'{{"instance":{instance}}}'.encode())
    assert isinstance(error, InstanceInvalid)
    assert (error.field, error.expected, error.got) == (field, expected, got)


def test_a_batch_axis_is_pointed_out() -> None:
    assert "without a batch axis" in str(refusal(FLAT, b'{"instance":[[1,2,3]]}'))


@pytest.mark.parametrize("number", [b"1" * 400, b"1" * 10_000, b"-" + b"9" * 310])
def test_a_huge_integer_is_refused(number: bytes) -> None:
    for reader in (FLAT, DOUBLE, INTEGERS):
        assert refusal(reader, b'{"instance":[1,%s,3]}' % number).field == "instance[1]"


@pytest.mark.parametrize("number", ["1.5", "1.0", "9223372036854775808", "-9223372036854775809", "true", "1e2"])
def test_an_integer_signature_takes_integers_of_64_bits_only(number: str) -> None:
    error = refusal(INTEGERS, f'{{"instance":[1,2,{number}]}}'.encode())
    assert error.field == "instance[2]"
    assert "an integer" in error.expected


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"instance":[1,2,3],"id":7}', "id"),
        (b'{"inputs":[1,2,3]}', "inputs"),
        (b"{}", "instance"),
        (b'{"instance":[9,9,9],"instance":[1,2,3]}', "instance"),
        (b"[1,2,3]", ""),
    ],
)
def test_a_body_has_the_key_instance_once_and_nothing_else(body: bytes, field: str) -> None:
    assert refusal(FLAT, body).field == field


@pytest.mark.parametrize(
    ("instance", "field"),
    [
        ("[[[1,2,3],[4,5]]]", "instance[0][1]"),
        ("[[[1,2,3]]]", "instance[0]"),
        ("[[[1,2,3],[4,5,null]]]", "instance[0][1][2]"),
        ("[[[1,2,3],[4,5,1e39]]]", "instance[0][1][2]"),
        ("[[1,2,3],[4,5,6]]", "instance"),
        ("[1,2,3,4,5]", "instance"),
    ],
)
def test_a_ragged_image_is_named_by_its_path(instance: str, field: str) -> None:
    assert refusal(IMAGE, f'{{"instance":{instance}}}'.encode()).field == field


@pytest.mark.parametrize(
    "row",
    [
        '[5.1, 2, "blue"]',
        '{"sepal length": 5.1, "petal: width": 2, "colour": "blue"}',
        '{"colour": "blue", "petal: width": 2, "sepal length": 5.1}',
    ],
)
def test_a_row_is_read_in_feature_order_with_categories_one_hot(row: str) -> None:
    read = TABLE.decode(f'{{"instance":{row}}}'.encode())
    assert np.array_equal(read, np.array([5.1, 2, 0, 1], np.float32))


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ('{"sepal lenght": 1, "petal: width": 2, "colour": "red"}', "instance['sepal lenght']", "Did you mean 'sepal"),
        ('{"petal: width": 2, "colour": "red"}', "instance", "none named 'sepal length'"),
        ('{"sepal length": 1, "petal: width": 2, "colour": "bleu"}', "instance['colour']", "Did you mean 'blue'?"),
        ('{"sepal length": 1, "petal: width": 2, "colour": 3}', "instance['colour']", "'red', 'blue'"),
        ('{"sepal length": "x", "petal: width": 2, "colour": "red"}', "instance['sepal length']", "a number"),
        ('{"sepal length":1,"sepal length":1,"petal: width":2,"colour":"red"}', "instance['sepal length']", "once"),
        ('[1, 2, "red", 4]', "instance", "3 values"),
        ('[1, 2, "purple"]', "instance[2]", "'purple' is no known category"),
        ('[1e39, 2, "red"]', "instance[0]", "finite as float32"),
    ],
)
def test_a_wrong_row_is_refused_with_the_names_that_are_known(row: str, field: str, said: str) -> None:
    error = refusal(TABLE, f'{{"instance":{row}}}'.encode())
    assert error.field == field
    assert said in str(error)


def test_a_message_quotes_little_of_a_long_input() -> None:
    body = json.dumps({"instance": ["x" * 1_000_000, 2, 3]}).encode()
    assert len(str(refusal(FLAT, body))) < 200


def test_half_a_surrogate_pair_can_be_answered() -> None:
    error = refusal(TABLE, b'{"instance":{"\\ud800":1}}')
    assert json.dumps(str(error)).encode()
    assert str(error).encode()


def test_an_integer_beyond_64_bits_is_told_the_limits() -> None:
    error = refusal(INTEGERS, b'{"instance":[1,2,9223372036854775808]}')
    assert error.expected == "an integer from -2^63 to 2^63-1"


@pytest.mark.parametrize("name", ['length "cm"', "a\\b", "a\nb", "\x00"])
def test_a_feature_whose_name_json_escapes_can_not_be_in_a_bundle(tmp_path: Path, name: str) -> None:
    features = (Feature(name="length"), Feature(name=name))
    with pytest.raises(ManifestInvalid, match="rename the column") as caught:
        write_tiny_bundle(tmp_path, tiny_model((2,), features=features))
    assert repr(name) in str(caught.value)
    path = tmp_path / "manifest.json"
    files = dict.fromkeys((MODEL_FILE, EXAMPLES_FILE), "")
    manifest = replace(tiny_manifest(tiny_model((2,), features=features)), files=files)
    path.write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(ManifestInvalid, match="rename the column"):
        read_manifest(path)


@pytest.mark.parametrize(("query", "number"), [(b"top_k=000000000001", 1), (b"top_k=2", 2), (b"top_k=99999999999", 3)])
def test_top_k_may_start_with_zeros_and_be_more_than_there_are(query: bytes, number: int) -> None:
    assert read_top_k(query, most=3) == number


@pytest.mark.parametrize("query", [b"top_k=0", b"top_k=0000000000000", b"top_k=", b"top_k=-1"])
def test_top_k_is_from_1_on(query: bytes) -> None:
    with pytest.raises(RequestInvalid, match="from 1 on"):
        read_top_k(query, most=3)
