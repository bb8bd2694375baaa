"""Finding what there is to serve."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from service.errors import BundleNotFound, ManifestInvalid, ModelUnloadable
from service.repository import Opening, find_places, open_place
from service.session import open_session
from tests.service.tiny_models import tiny_model, to_model, write_tiny_bundle

OPENING = Opening(device="cpu")


def find_versions(root: Path, name: str = "digits") -> list[str | None]:
    return [place.version for place in find_places(root).places[name]]


def test_versions_are_numbers_from_the_highest_down_and_ten_is_more_than_nine(tmp_path: Path) -> None:
    for version in ("9", "10", "2"):
        write_tiny_bundle(tmp_path, tiny_model(), version=version)
    assert find_versions(tmp_path) == ["10", "9", "2"]


def test_a_directory_without_a_manifest_is_no_bundle_yet(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    (tmp_path / "digits" / "2").mkdir()
    (tmp_path / "digits" / "2" / "model.onnx").touch()
    assert find_versions(tmp_path) == ["1"]


@pytest.mark.parametrize("name", ["01", "0", "v2", "2.partial", "-1", "١"])
def test_what_is_no_version_is_passed_over(tmp_path: Path, name: str) -> None:
    bundle = write_tiny_bundle(tmp_path, tiny_model())
    shutil.copytree(bundle.directory, tmp_path / "digits" / name)
    assert find_versions(tmp_path) == ["1"]


def test_one_bundle_directory_is_served_wherever_it_lies(tmp_path: Path) -> None:
    directory = write_tiny_bundle(tmp_path, tiny_model()).directory.rename(tmp_path / "anywhere")
    (place,) = find_places(directory).places["digits"]
    assert open_place(place, OPENING, directory).name == "digits"


def test_a_bundle_under_another_name_is_refused(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    (tmp_path / "digits").rename(tmp_path / "letters")
    (place,) = find_places(tmp_path).places["letters"]
    with pytest.raises(ManifestInvalid, match=r"holds model 'digits', version '1': expected it in …/digits/1"):
        open_place(place, OPENING, tmp_path)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="nothing to serve at"):
        find_places(tmp_path / "missing")


def test_a_bare_model_that_is_none_is_refused_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    (place,) = find_places(path).places["m"]
    with pytest.raises(ModelUnloadable, match=str(path)):
        open_place(place, OPENING, path)


def test_a_bundle_that_is_written_anew_has_another_stamp(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    before = find_places(tmp_path)
    assert find_places(tmp_path) == before
    (tmp_path / "digits" / "1" / "manifest.json").unlink()
    write_tiny_bundle(tmp_path, tiny_model())
    assert find_places(tmp_path) != before


def test_labels_point_to_versions_and_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    labels = tmp_path / "digits" / "labels.json"
    labels.write_text('{"stable": 1, "canary": "2"}')
    assert find_places(tmp_path).labels == {"digits": {"stable": "1", "canary": "2"}}
    for wrong in ("{", '{"a/b": 1}', "[]", '{"stable": null}'):
        labels.write_text(wrong)
        found = find_places(tmp_path)
        assert found.labels == {"digits": None}
        assert str(labels) in found.complaints[0]


def test_labels_that_point_to_nothing_are_named_with_what_there_is(tmp_path: Path) -> None:
    for version in ("2", "10"):
        write_tiny_bundle(tmp_path, tiny_model(), version=version)
    labels = tmp_path / "digits" / "labels.json"
    labels.write_text('{"stable": 2, "canary": 11}')
    found = find_places(tmp_path)
    assert found.complaints == (
        f"{labels}: the label 'canary' points to version 11, which is not there: there are 10, 2",
    )


@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "too long"])
def test_labels_are_read_from_a_short_plain_file_only(tmp_path: Path, kind: str) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    labels = tmp_path / "digits" / "labels.json"
    put(labels, kind)
    found = find_places(tmp_path)
    assert found.labels == {"digits": None}
    assert str(labels) in found.complaints[0]


def put(path: Path, kind: str) -> None:
    """Put something there that is no short plain file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_text("{" + " " * (64 << 10) + "}")


@pytest.mark.parametrize("name", ["model.onnx", "examples.json"])
def test_a_bundle_of_which_one_file_was_replaced_has_another_stamp(tmp_path: Path, name: str) -> None:
    path = write_tiny_bundle(tmp_path, tiny_model()).directory / name
    before = find_places(tmp_path)
    content = path.read_bytes()
    path.unlink()
    without = find_places(tmp_path)
    path.write_bytes(content + b" ")
    assert before != without != find_places(tmp_path) != before


def test_a_version_may_be_a_link_to_where_it_lies(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model()).directory.rename(tmp_path / "store-abc")
    (tmp_path / "digits" / "1").symlink_to("../store-abc")
    (place,) = find_places(tmp_path).places["digits"]
    assert open_place(place, OPENING, tmp_path).version == "1"


def test_what_can_not_be_read_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    make_unreadable(tmp_path / "letters")
    make_unreadable(tmp_path / "digits" / "2")
    (tmp_path / "digits" / "3").mkdir()
    found = find_places(tmp_path)
    assert found.unread == frozenset({"letters"})
    assert found.unclear == frozenset({("digits", "2"), ("digits", "3")})
    assert [complaint.split(" can not be read")[0] for complaint in found.complaints] == [
        str(tmp_path / "digits" / "2"),
        str(tmp_path / "letters"),
    ]


def make_unreadable(path: Path) -> None:
    """Have a directory that not even root can list: a link to itself."""
    path.symlink_to(path.name)


def test_names_in_a_model_that_are_no_text_are_refused_in_a_sentence(tmp_path: Path) -> None:
    for old, new in ((b"batch", b"bat\xffh"), (b"scores", b"score\xff")):
        path = tiny_model().save(tmp_path / "m.onnx")
        path.write_bytes(path.read_bytes().replace(old, new))
        with pytest.raises(ModelUnloadable, match=r"m\.onnx: the name of an input, an output or an axis is no text"):
            open_session(path, device="cpu")


def test_a_first_output_that_is_one_number_is_refused_in_a_sentence(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, [])
    path = tmp_path / "m.onnx"
    node = helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0)
    path.write_bytes(to_model([node], [x], [total], []).SerializeToString())
    with pytest.raises(ModelUnloadable, match="output 'total' has shape"):
        open_session(path, device="cpu")
