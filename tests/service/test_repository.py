"""Finding what there is to serve."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from service.errors import BundleNotFound, ManifestInvalid, ModelUnloadable
from service.repository import Opening, find_places, open_place
from tests.service.tiny_models import tiny_model, write_tiny_bundle

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
