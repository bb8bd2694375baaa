"""Finding what there is to serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import BundleNotFound, ManifestInvalid, ModelUnloadable
from service.repository import Opening, open_repository
from tests.service.tiny_models import tiny_model, write_tiny_bundle


def test_the_highest_version_is_served_and_ten_is_more_than_nine(tmp_path: Path) -> None:
    for version in ("9", "10", "2"):
        write_tiny_bundle(tmp_path, tiny_model(), version=version)
    repository = open_repository(tmp_path, Opening(device="cpu"))
    assert [model.version for model in repository.models.values()] == ["10"]


def test_a_directory_without_a_manifest_is_no_bundle_yet(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    (tmp_path / "digits" / "2").mkdir()
    (tmp_path / "digits" / "2" / "model.onnx").touch()
    assert open_repository(tmp_path, Opening(device="cpu")).models["digits"].version == "1"


def test_one_bundle_directory_is_served_wherever_it_lies(tmp_path: Path) -> None:
    directory = write_tiny_bundle(tmp_path, tiny_model()).directory.rename(tmp_path / "anywhere")
    repository = open_repository(directory, Opening(device="cpu"))
    assert repository.default is not None
    assert repository.default.name == "digits"


def test_a_bundle_under_another_name_is_refused(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model())
    (tmp_path / "digits").rename(tmp_path / "letters")
    with pytest.raises(ManifestInvalid, match=r"holds model 'digits', version '1': expected it in …/digits/1"):
        open_repository(tmp_path, Opening(device="cpu"))


def test_the_only_model_is_the_default_and_of_several_none_is(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, tiny_model(), name="a")
    assert open_repository(tmp_path, Opening(device="cpu")).default is not None
    write_tiny_bundle(tmp_path, tiny_model(), name="b")
    assert open_repository(tmp_path, Opening(device="cpu")).default is None
    chosen = open_repository(tmp_path, Opening(device="cpu"), default_model="b").default
    assert chosen is not None
    assert chosen.name == "b"


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="nothing to serve at"):
        open_repository(tmp_path / "missing", Opening(device="cpu"))
    write_tiny_bundle(tmp_path, tiny_model())
    with pytest.raises(BundleNotFound, match="the default model 'other' is not there: there are digits"):
        open_repository(tmp_path, Opening(device="cpu"), default_model="other")


def test_a_bare_model_that_is_none_is_refused_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelUnloadable, match=str(path)):
        open_repository(path, Opening(device="cpu"))
