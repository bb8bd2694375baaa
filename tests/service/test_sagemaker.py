"""SageMaker's endpoints of many models: what may be loaded, and the documents about it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BodyMalformed, RequestError, RequestInvalid
from service.protocols.sagemaker import (
    Loaded,
    answer_already_loaded,
    answer_done,
    answer_model,
    answer_models,
    answer_out_of_memory,
    answer_ping,
    read_loading,
)


def body(name: Any = "a1b2", url: Any = "/opt/ml/models/a1b2/model") -> bytes:
    return json.dumps({"model_name": name, "url": url}).encode()


def test_a_model_is_loaded_from_below_the_root() -> None:
    loading = read_loading(body())
    assert (loading.name, loading.url, loading.path) == (
        "a1b2",
        "/opt/ml/models/a1b2/model",
        Path("/opt/ml/models/a1b2/model"),
    )
    assert read_loading(body(url="file:///opt/ml/models/a%20b")).path == Path("/opt/ml/models/a b")


@pytest.mark.parametrize(
    "url",
    [
        "/etc/passwd",
        "/opt/ml/models/../../etc",
        "opt/ml/models/a",
        "s3://bucket/model",
        "http://127.0.0.1/opt/ml/models/a",
        "file:///etc",
        "/opt/ml/models/a\0b",
        "/opt/ml/models-of-another",
        "file://[",
        "z" * 9999,
    ],
)
def test_a_url_that_leaves_the_root_is_refused(url: str) -> None:
    with pytest.raises(RequestInvalid, match="a path below /opt/ml/models") as caught:
        read_loading(body(url=url))
    assert caught.value.field == "url"
    assert len(str(caught.value)) < 200


def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(RequestInvalid):
        read_loading(body(url=str(root / "link")), root)
    (root / "a").mkdir()
    assert read_loading(body(url=str(root / "a")), root).path == (root / "a").resolve()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (body(name="../up"), "model_name: expected 1 to 64 letters"),
        (body(name=3), "model_name: expected a text, got 3"),
        (body(url=None), "url: expected a text, got null"),
        (b'{"model_name":"a"}', "url: expected a text, got nothing"),
        (b'{"model_name":"a","uri":"/"}', "Did you mean 'url'?"),
        (b'{"model_name":"a","model_name":"b","url":"/"}', "more than once"),
        (b"[]", "not an object"),
    ],
)
def test_what_is_wrong_is_named(sent: bytes, said: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        read_loading(sent)
    assert said in str(caught.value)


def test_a_body_that_is_not_json_is_malformed() -> None:
    with pytest.raises(BodyMalformed):
        read_loading(b'{"model_name":')


@given(
    sent=st.binary()
    | st.dictionaries(st.sampled_from(["model_name", "url"]), st.text()).map(json.dumps).map(str.encode)
)
def test_any_body_is_read_or_refused(sent: bytes) -> None:
    with contextlib.suppress(RequestError):
        assert str(read_loading(sent).path).startswith("/opt/ml/models")


def test_documents_are_as_sagemaker_reads_them() -> None:
    models = [Loaded("b", "/opt/ml/models/b"), Loaded("a", "/opt/ml/models/a")]
    assert json.loads(answer_models(models).body) == {
        "models": [
            {"modelName": "a", "modelUrl": "/opt/ml/models/a"},
            {"modelName": "b", "modelUrl": "/opt/ml/models/b"},
        ]
    }
    assert json.loads(answer_model(models[0]).body) == {"modelName": "b", "modelUrl": "/opt/ml/models/b"}
    assert json.loads(answer_done(name="a", did="loaded").body) == {"status": "loaded model 'a'"}


def test_statuses_are_as_sagemaker_reads_them() -> None:
    assert (answer_ping().status, answer_ping().body) == (200, b"")
    assert (answer_already_loaded("a").status, answer_out_of_memory("a").status) == (409, 507)
    assert "'a'" in json.loads(answer_out_of_memory("a").body)["error"]
