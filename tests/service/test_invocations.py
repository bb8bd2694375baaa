"""POST /invocations: the same numbers give the same bits in every form, and what is wrong is named in every one."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.bundle import Feature
from service.errors import BodyMalformed, NotReady, PredictionFailed, RequestError
from service.protocols.answer import Answer
from service.protocols.contract import Headers
from service.protocols.invocations import Invocations
from service.protocols.npy_header import read_npy_header
from service.repository import ServedModel
from tests.service.served_models import ask, read, serve
from tests.service.tiny_models import TOLERANCE, tiny_model

NUMBERS = tuple(Feature(name=name) for name in ("length", "width", "petal: length", "petal, width"))
MIXED = (Feature(name="length"), Feature(name="colour", categories=("red", "blue, green")), Feature(name="width"))
FLOAT32: Any = st.floats(width=32, allow_nan=False, allow_infinity=False)
CSV, NPY, RAW = (
    Headers(content_type=media_type) for media_type in (b"text/csv", b"application/x-npy", b"application/octet-stream")
)
LINE = b"1,2,3,4.5\n"


@pytest.fixture(scope="module")
def unnamed(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((4,)), tmp_path_factory.mktemp("unnamed"))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((4,), features=NUMBERS), tmp_path_factory.mktemp("named"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((4,), features=MIXED), tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((2, 3)), tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def integers(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve(tiny_model((3,), dtype="int64"), tmp_path_factory.mktemp("integers"))


def post(model: ServedModel, body: Any, headers: Headers = Headers()) -> Answer:  # noqa: B008 - a value
    return ask(model, Invocations(model), body if isinstance(body, bytes) else json.dumps(body).encode(), headers)


def refusal(answer: Answer) -> dict[str, str]:
    said: dict[str, str] = json.loads(answer.body)
    assert answer.status == 400
    assert (said["error_code"], said["message"]) == ("BAD_REQUEST", said["error"])
    return said


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def lines(rows: list[list[Any]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_MINIMAL).writerows(rows)
    return file.getvalue().encode()


instances_of_four = arrays.arrays("float32", st.tuples(st.integers(1, 4), st.just(4)), elements=FLOAT32)


@given(instances=instances_of_four, order=st.permutations(range(4)))
def test_every_form_gives_the_same_bits(named: ServedModel, instances: Any, order: list[int]) -> None:
    contract, expected = Invocations(named), [instance.tobytes() for instance in instances]
    names = [NUMBERS[place].name for place in order]
    rows, permuted = instances.tolist(), instances[:, order].tolist()
    records = [dict(zip(names, row, strict=True)) for row in permuted]
    columns = dict(zip(names, map(list, zip(*permuted, strict=True)), strict=True))
    for form in (
        {"dataframe_split": {"columns": names, "data": permuted}},
        {"dataframe_split": {"data": rows}},
        {"dataframe_split": {"columns": names, "index": list(range(len(rows))), "data": permuted}, "params": {}},
        {"dataframe_records": records},
        {"instances": rows},
        {"instances": records},
        {"inputs": rows},
        {"inputs": columns},
        {"inputs": {"x": rows}},
        {"inputs": [{"name": "x", "shape": list(instances.shape), "datatype": "FP32", "data": rows}]},
    ):
        assert [bytes(each) for each in read(contract, json.dumps(form).encode()).instances] == expected
    for headers, body in (
        (CSV, lines(rows)),
        (CSV, lines([names, *permuted])),
        (NPY, npy(instances)),
        (NPY, npy(instances.astype(np.float64))),
        (NPY, npy(np.asfortranarray(instances.astype(">f4")))),
        (RAW, instances.astype("<f4").tobytes()),
    ):
        assert list(read(contract, body, headers).instances) == expected


@given(instances=arrays.arrays("float32", (3, 2, 3), elements=FLOAT32))
def test_an_image_gives_the_same_bits_in_every_form(image: ServedModel, instances: Any) -> None:
    contract, expected = Invocations(image), [instance.tobytes() for instance in instances]
    flat = instances.reshape(3, 6).tolist()
    for form in ({"instances": instances.tolist()}, {"inputs": {"x": flat}}, {"dataframe_split": {"data": flat}}):
        assert list(read(contract, json.dumps(form).encode()).instances) == expected
    for headers, body in ((CSV, lines(flat)), (NPY, npy(instances)), (RAW, instances.tobytes())):
        assert list(read(contract, body, headers).instances) == expected
    assert list(read(contract, npy(instances[0]), NPY).instances) == expected[:1]


@given(values=arrays.arrays("int64", (2, 3), elements=st.integers(-(2**63), 2**63 - 1)))
def test_integers_give_the_same_bits_in_every_form(integers: ServedModel, values: Any) -> None:
    contract, expected = Invocations(integers), [instance.tobytes() for instance in values]
    assert (
        list(read(contract, json.dumps({"dataframe_split": {"data": values.tolist()}}).encode()).instances) == expected
    )
    for headers, body in ((CSV, lines(values.tolist())), (NPY, npy(values.astype(">i8"))), (RAW, values.tobytes())):
        assert list(read(contract, body, headers).instances) == expected


rows_with_words = st.lists(st.tuples(FLOAT32, st.sampled_from(MIXED[1].categories), FLOAT32), min_size=1, max_size=4)


@given(rows=rows_with_words, order=st.permutations(range(3)))
def test_words_become_codes_as_in_our_own_contract(mixed: ServedModel, rows: Any, order: list[int]) -> None:
    contract, own = Invocations(mixed), mixed.predictor.reader.pack
    expected = [own(json.dumps({"instance": row}).encode()) for row in rows]
    names, permuted = [MIXED[place].name for place in order], [[row[place] for place in order] for row in rows]
    split = {"dataframe_split": {"columns": names, "data": permuted}}
    assert list(read(contract, json.dumps(split).encode()).instances) == expected
    for table in ([names, *permuted], rows):
        assert list(read(contract, lines(list(map(list, table))), CSV).instances) == expected


@given(values=arrays.arrays("float64", (2, 4), elements=st.floats(-1e38, 1e38)))
def test_float64_is_rounded_in_npy_as_it_is_in_json(unnamed: ServedModel, values: Any) -> None:
    contract = Invocations(unnamed)
    in_json = read(contract, json.dumps({"instances": values.tolist()}).encode())
    assert list(read(contract, npy(values), NPY).instances) == list(in_json.instances)


def test_predictions_are_the_oracles(unnamed: ServedModel) -> None:
    answer = post(unnamed, {"instances": [[1, 2, 3, 4.5]]})
    assert answer.content_type == b"application/json"
    oracle = tiny_model((4,)).oracle(np.array([1, 2, 3, 4.5]))
    np.testing.assert_allclose(json.loads(answer.body)["predictions"], [oracle], atol=TOLERANCE)


def test_our_own_contract_answers_as_everywhere(unnamed: ServedModel) -> None:
    answer = post(unnamed, {"instance": [1, 2, 3, 4.5]})
    assert json.loads(answer.body)["model"] == {"name": "digits", "version": "4"}
    assert refusal(post(unnamed, {"instance": [1, 2, 3]}))["field"] == "instance"


def test_the_open_inference_protocol_answers_as_everywhere(unnamed: ServedModel) -> None:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4.5]}
    assert json.loads(post(unnamed, {"inputs": [tensor]}).body)["model_name"] == "digits"
    assert refusal(post(unnamed, {"inputs": [tensor | {"shape": [1, 5]}]}))["error"]


def test_the_media_type_of_triton_for_sagemaker_is_read(unnamed: ServedModel) -> None:
    head = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}'
    instance = np.arange(4, dtype=np.float32).tobytes()
    media_type = b"application/vnd.sagemaker-triton.binary+json;json-header-size=%d" % len(head)
    answer = ask(unnamed, Invocations(unnamed), head + instance, Headers(content_type=media_type))
    assert answer.status == 200


def test_accept_is_honoured(unnamed: ServedModel) -> None:
    scores = json.loads(post(unnamed, LINE + LINE, CSV).body)["predictions"]
    as_csv = post(unnamed, LINE + LINE, Headers(content_type=b"text/csv", accept=b"text/csv"))
    assert as_csv.content_type == b"text/csv"
    assert [[float(cell) for cell in row] for row in csv.reader(as_csv.body.decode().splitlines())] == scores
    as_npy = post(unnamed, LINE + LINE, Headers(content_type=b"text/csv", accept=b"image/png, application/x-npy;q=1"))
    assert as_npy.content_type == b"application/x-npy"
    read_back = np.load(io.BytesIO(as_npy.body), allow_pickle=False)
    np.testing.assert_array_equal(read_back, np.array(scores, np.float32))
    for accept in (b"*/*", b"application/json", b"text/html"):
        assert post(unnamed, LINE, Headers(content_type=b"text/csv", accept=accept)).content_type == b"application/json"


def test_an_answer_that_is_not_finite_is_refused_in_every_form(unnamed: ServedModel) -> None:
    for accept in (b"", b"text/csv", b"application/x-npy"):
        answer = post(unnamed, b"3e38,3e38,3e38,3e38", Headers(content_type=b"text/csv", accept=accept))
        assert "overflows on instance 0" in refusal(answer)["error"]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({}, "", "exactly one of the keys 'dataframe_split', 'dataframe_records', 'instances', 'inputs'"),
        ([[1, 2, 3, 4]], "", "the body is not an object"),
        ({"instances": [], "inputs": []}, "", "got 'instances', 'inputs'"),
        ({"instances": [[1, 2, 3, 4]], "parms": {}}, "parms", "Did you mean 'params'?"),
        ({"instances": [[1, 2, 3, 4]], "params": {"a": 1}}, "params", "the model takes none"),
        ({"dataframe_split": [[1]]}, "dataframe_split", "an object with the keys 'columns' and 'data'"),
        ({"dataframe_split": {"columns": ["a"]}}, "dataframe_split", "'data', got 'columns'"),
        ({"dataframe_split": {"data": []}}, "dataframe_split.data", "one or more lists"),
        ({"dataframe_split": {"data": [[1, 2, 3, 4], 5]}}, "dataframe_split.data[1]", "a list, got 5"),
        ({"dataframe_split": {"data": [[1, 2, 3]]}}, "dataframe_split.data[0]", "4 values"),
        ({"dataframe_split": {"columns": "abcd", "data": [[1]]}}, "dataframe_split.columns", "a list of names"),
        ({"dataframe_split": {"columns": [None], "data": [[1]]}}, "dataframe_split.columns[0]", "a name, got null"),
        ({"dataframe_records": [{"length": 1}]}, "dataframe_records[0]", "none named 'width'"),
        ({"dataframe_records": [[1, 2, 3, 4]]}, "dataframe_records[0]", "an object, got a list of 4"),
        ({"inputs": {"length": 1, "width": 2}}, "inputs", "none named 'petal: length', 'petal, width'"),
    ],
)
def test_what_is_wrong_is_named(named: ServedModel, body: Any, field: str, said: str) -> None:
    answer = refusal(post(named, body))
    assert said in answer["error"]
    assert answer.get("field", "") == field


@pytest.mark.parametrize(
    ("columns", "row", "field", "said"),
    [
        (["width", "lenght", "petal: length", "petal, width"], [1, 2, 3, 4], ".columns[1]", "Did you mean 'length'?"),
        (["width", "width", "petal: length", "petal, width"], [1, 2, 3, 4], ".columns[1]", "'width' again"),
        (["width", "petal: length", "petal, width"], [1, 2, 3], ".columns", "none named 'length'"),
        (["width", "length", "petal: length", "petal, width"], [1, None, 3, 4], ".data[0][1]", "a number, got null"),
        (["width", "length", "petal: length", "petal, width"], [True, 2, 3, 4], ".data[0][0]", "a number, got true"),
        (["width", "length", "petal: length", "petal, width"], [1, 2, 3], ".data[0]", "4 values"),
    ],
)
def test_what_is_wrong_with_a_dataframe_is_named(
    named: ServedModel, columns: list[str], row: list[Any], field: str, said: str
) -> None:
    answer = refusal(post(named, {"dataframe_split": {"columns": columns, "data": [row]}}))
    assert answer["field"] == f"dataframe_split{field}"
    assert said in answer["error"]


def test_a_model_without_names_takes_numbered_columns_in_any_order(unnamed: ServedModel) -> None:
    contract = Invocations(unnamed)
    expected = read(contract, b'{"instances":[[1,2,3,4]]}').instances
    for columns in ([3, 2, 1, 0], ["3", "2", "1", "0"]):
        body = json.dumps({"dataframe_split": {"columns": columns, "data": [[4, 3, 2, 1]]}}).encode()
        assert read(contract, body).instances == expected
    answer = refusal(post(unnamed, {"dataframe_split": {"columns": list("abcd"), "data": [[4, 3, 2, 1]]}}))
    assert "a column from '0' to '3', as the model names none, got 'a'" in answer["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body has no rows"),
        (b"\n \n", "the body has no rows"),
        (b"1,2,3,4\n1,2,3\n", "line 2: expected 4 values"),
        (b"1,2,3,4],[5,6,7,8\n", "line 1: expected 4 values"),
        (b"1,2,x,4\n", "line 1, column 3: expected a number, got the string 'x'"),
        (b"1,2,,4\n", "line 1, column 3: expected a number, got the string ''"),
        (b"1,2,1_0,4\n", "line 1, column 3"),
        (b"1,2,nan,4\n", "line 1, column 3"),
        (b"1,2,1e39,4\n", "line 1, column 3: expected a number that is finite as float32"),
        (b"width,lenght,petal: length,petal; width\n1,2,3,4\n", "Did you mean 'length'?"),
        (b"width,length,petal: length\n1,2,3\n", "none named 'petal, width'"),
        (b'width,length,petal: length,"petal, width"\n1,2,3,x\n', "line 2, column 4"),
        (b'width,length,petal: length,"petal, width"\n', "the body has no rows"),
        (b'1,2,3,"4\n', "the body is not CSV"),
        (b"1,2,3,\xff\n", "the body is not UTF-8: byte 6"),
    ],
)
def test_what_is_wrong_with_csv_is_named_by_line_and_column(named: ServedModel, body: bytes, said: str) -> None:
    assert said in refusal(post(named, body, CSV))["error"]


def test_csv_may_be_written_in_many_ways(named: ServedModel) -> None:
    contract = Invocations(named)
    expected = read(contract, b"1,2,3,0.5\n10,0,0,0\n", CSV).instances
    for body in (
        b"1,2,3,.5\r\n1e1,0,0,0",
        b"\xef\xbb\xbf1, 2, 3, 0.5\n\n+10,0,0,0\n\n",
        b'"1","2","3","0.5"\n10.,0,0,00\n',
        b'length,width,petal: length,"petal, width"\n1,2,3,0.5\n10,0,0,0\n',
    ):
        assert read(contract, body, CSV).instances == expected


def test_a_long_csv_is_read_the_quickest_way(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = serve(tiny_model((200,)), tmp_path_factory.mktemp("long"))
    rows = np.random.default_rng(9).normal(size=(3, 200)).astype(np.float32)
    instances = read(Invocations(model), lines(rows.tolist()), CSV).instances
    assert list(instances) == [row.tobytes() for row in rows]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not a .npy file"),
        (b"\x93NUMPY\x03\x00", "not a .npy file"),
        (npy(np.zeros(3, [("a", "f4")])), "not a .npy file with an array of numbers"),
        (b"\x93NUMPY\x01\x00\xff\xff", "not a .npy file"),
        (npy(np.zeros((2, 4), np.float32))[:-1], "expected 32 bytes of values for the shape [2, 4], got 31 bytes"),
        (npy(np.zeros((2, 4), np.float32)) + b"x", "got 33 bytes"),
        (npy(np.zeros((0, 4), np.float32)), "expected 0 bytes of values for the shape [0, 4]"),
        (npy(np.zeros((1,) * 9)), "not a .npy file with an array of numbers"),
        (npy(np.zeros((2, 5), np.float32)), "the shape [instances, 4], got the shape [2, 5]"),
        (npy(np.zeros((1, 2, 4), np.float32)), "got the shape [1, 2, 4]"),
        (npy(np.float32(1)), "got the shape []"),
        (npy(np.zeros((2, 4), bool)), "a dtype of integers, or of floats of up to 64 bits, got '|b1'"),
        (npy(np.zeros((2, 4), complex)), "got '<c16'"),
        (npy(np.zeros((2, 4), "U3")), "got '<U3'"),
        (npy(np.array([[0, 1, 2, 3], [0, 1, np.nan, 3]])), "instances[1][2]: expected a number that is finite"),
        (npy(np.array([[0, 1, 2, 1e39]])), "instances[0][3]: expected a number that is finite as float32, got 1e+39"),
    ],
)
def test_what_is_wrong_with_an_npy_file_is_named(unnamed: ServedModel, body: bytes, said: str) -> None:
    assert said in refusal(post(unnamed, body, NPY))["error"]


def test_pickled_objects_are_not_loaded(unnamed: ServedModel) -> None:
    file = io.BytesIO()
    np.save(file, np.array([[1, 2, 3, None]], dtype=object), allow_pickle=True)
    assert "got '|O'" in refusal(post(unnamed, file.getvalue(), NPY))["error"]


def test_a_header_that_promises_petabytes_allocates_nothing(unnamed: ServedModel) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**60, 4)})
    assert "expected 18446744073709551616 bytes" in refusal(post(unnamed, file.getvalue(), NPY))["error"]


def test_an_integer_model_takes_arrays_of_integers_only(integers: ServedModel) -> None:
    assert post(integers, npy(np.arange(3, dtype=np.uint8)), NPY).status == 200
    assert "a dtype of integers, for int64, got float64" in refusal(post(integers, npy(np.zeros((1, 3))), NPY))["error"]
    large = npy(np.array([[0, 1, 2**63]], dtype=np.uint64))
    assert "instances[0][2]: expected an integer of 64 bits" in refusal(post(integers, large, NPY))["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "16 bytes for each instance"),
        (bytes(15), "got 15 bytes"),
        (np.array([0, 1, np.inf, 3], np.float32).tobytes(), "instances[0][2]"),
    ],
)
def test_what_is_wrong_with_raw_values_is_named(unnamed: ServedModel, body: bytes, said: str) -> None:
    assert said in refusal(post(unnamed, body, RAW))["error"]


@pytest.mark.parametrize(
    "content_type",
    [b"image/png", b"text/csv; charset=latin-1", b"application/json; charset=utf-16", b"text/plain", b"\xff\xfe"],
)
def test_another_media_type_is_refused(unnamed: ServedModel, content_type: bytes) -> None:
    assert post(unnamed, LINE, Headers(content_type=content_type)).status == 415


@pytest.mark.parametrize(
    "content_type", [b"text/csv", b"Text/CSV; charset=UTF-8", b"text/csv; header=present", b"text/csv;charset=us-ascii"]
)
def test_csv_may_be_announced_in_many_ways(unnamed: ServedModel, content_type: bytes) -> None:
    assert post(unnamed, LINE, Headers(content_type=content_type)).status == 200


def test_failures_have_the_code_that_mlflow_gives_them(unnamed: ServedModel) -> None:
    contract = Invocations(unnamed)
    for error, status, code in (
        (BodyMalformed("no"), 400, "BAD_REQUEST"),
        (NotReady("no"), 503, "TEMPORARILY_UNAVAILABLE"),
        (PredictionFailed("no"), 500, "INTERNAL_ERROR"),
    ):
        answer = contract.refuse(error)
        said = json.loads(answer.body)
        assert (answer.status, said["error_code"], said["message"], said["error"]) == (status, code, "no", "no")
    assert contract.refuse(NotReady("no")).headers == ((b"retry-after", b"1"),)


def test_no_message_repeats_a_request(named: ServedModel) -> None:
    for body, headers in (
        (b"z" * 9999, CSV),
        (b"z" * 9999, Headers()),
        (json.dumps({"dataframe_split": {"columns": ["z" * 9999], "data": [["z" * 9999]]}}).encode(), Headers()),
        (npy(np.array(["z" * 9999])), NPY),
    ):
        assert len(post(named, body, headers).body) < 1200


GOOD = [
    (
        b'{"dataframe_split":{"columns":["length","width","petal: length","petal, width"],"data":[[1,2,3,4]]}}',
        Headers(),
    ),
    (b'{"dataframe_records":[{"length":1,"width":2,"petal: length":3,"petal, width":4}],"params":{}}', Headers()),
    (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}', Headers()),
    (b'length,width,petal: length,"petal, width"\n1,2,3,4\n', CSV),
    (b"1,2.5,-3,4e2\n1,2,3,4\n", CSV),
    (npy(np.ones((1, 4))), NPY),
    (npy(np.ones((1, 4), np.int16)), NPY),
    (np.ones((2, 4), np.float32).tobytes(), RAW),
]


@given(data=st.data())
def test_a_mutated_body_is_read_alike_or_refused(named: ServedModel, unnamed: ServedModel, data: st.DataObject) -> None:
    good, headers = data.draw(st.sampled_from(GOOD))
    body = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(min_size=1, max_size=2))
    for model in (named, unnamed):
        with contextlib.suppress(RequestError):
            instances = read(Invocations(model), bytes(body), headers).instances
            assert {len(instance) for instance in instances} == {16}
            assert all(np.isfinite(np.frombuffer(instance, "float32")).all() for instance in instances)


@given(
    array=arrays.arrays(st.sampled_from(["<f2", "<f4", ">f8", "|i1", "<u4", ">i8"]), arrays.array_shapes(max_dims=4)),
    version=st.sampled_from([(1, 0), (2, 0), (3, 0)]),
    in_columns=st.booleans(),
)
def test_headers_of_npy_files_are_read_as_numpy_reads_them(
    array: Any, version: tuple[int, int], *, in_columns: bool
) -> None:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # numpy warns of versions that others can not read
        np.lib.format.write_array(file, np.array(array, order="F" if in_columns else "C"), version)
    header = read_npy_header(file.getvalue())
    assert (np.dtype(header.descr), header.shape) == (array.dtype, array.shape)
    assert file.getvalue()[header.start :] == array.tobytes(order="F" if header.is_fortran_order else "C")


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (b"text/csv;q=0, application/json", b"application/json"),
        (b"text/csv;q=0", b"application/json"),
        (b"application/json;q=0.5, text/csv;q=0.9", b"text/csv"),
        (b"text/csv; Q=0.000, application/x-npy;q=0.1", b"application/x-npy"),
        (b"text/csv, application/json", b"text/csv"),
        (b"text/csv;q=x, application/json;q=0.9", b"text/csv"),
    ],
)
def test_accept_is_followed_by_its_quality(unnamed: ServedModel, accept: bytes, content_type: bytes) -> None:
    assert post(unnamed, {"instances": [[1, 2, 3, 4]]}, Headers(accept=accept)).content_type == content_type
